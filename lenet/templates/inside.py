"""What the trained networks look like inside: first-layer kernels, and the maps of one image."""

from collections.abc import Sequence

from lenet import figures
from lenet.templates.document import Notice, Row, Section, Text, plot
from lenet.templates.run import Portrait, Run, file_name

TITLE = "Kernels and feature maps"
HOW_TO_READ = (
    "Blue is positive, orange negative, blank zero. The kernels of c1 have one scale, and so have "
    "the maps of each layer; scales differ from layer to layer and from network to network. c1 and "
    "c3 are shown after the activation, s2 and s4 after pooling."
)


def section(run: Run, portraits: Sequence[Portrait] | str) -> Section:
    """The kernels and maps of one network a variant, side by side.

    Args:
        run: the run.
        portraits: of each variant one network, or the reason why there is none.
    """
    if isinstance(portraits, str):
        return Section(TITLE, (Notice(f"**Kernels and feature maps are not drawn.** {portraits}"),))
    several = len(portraits) > 1
    drawn = []
    for portrait in portraits:
        label = run.labels.get(portrait.variant, portrait.variant)
        title = (
            label
            if several
            else "The kernels of c1" + (" and the maps of one image" if portrait.layers else "")
        )
        drawn.append(
            plot(
                f"inside_{file_name(portrait.variant)}" if several else "inside",
                figures.portrait(portrait.kernels, portrait.layers, title=title),
                f"First-layer kernels and feature maps of {label}.",
                f"{label}, seed {portrait.seed}.",
            )
        )
    what = "The kernels of the first layer"
    if all(portrait.layers for portrait in portraits):
        label = run.dataset["class_names"][run.test_labels[0]]
        what += f", and what each layer makes of the first test image (its label: {label})"
    which = ", in the first trial of each variant that finished" if several else ""
    return Section(TITLE, (Text(f"{what}{which}. {HOW_TO_READ}"), Row(tuple(drawn))))
