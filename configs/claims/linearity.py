"""One claim of `configs/claims.py`.

python main.py --config=configs/claims/linearity.py
"""

from ml_collections import ConfigDict

from configs import claims


def get_config() -> ConfigDict:
    return claims.get_config(("linearity",))
