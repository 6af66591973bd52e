"""Writing files so that nothing is ever half there."""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Gives an `OSError` that names no file, as of a write to a full disk, the name of this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file through `write`, given it open for bytes: whole, or not at all.

    Raises:
        OSError: if it cannot be written; what was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with named_errors(path), temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
