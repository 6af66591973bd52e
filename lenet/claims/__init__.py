"""The note's statements about LeNet as experiments, one file a claim.

`claim` has what they all are, `rules` how an interval becomes a verdict, `evidence` what their
examinations share, `tracing` a look inside of training. Their order is that of the report.
"""

from lenet.claims import (
    activations,
    choices,
    firewall,
    heads,
    kernels,
    linearity,
    parameters,
    pooling,
    pytorch,
)
from lenet.claims.claim import Claim

CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (
        activations.CLAIM,
        linearity.CLAIM,
        pooling.CLAIM,
        parameters.CLAIM,
        heads.CLAIM,
        firewall.CLAIM,
        choices.CLAIM,
        pytorch.CLAIM,
        kernels.CLAIM,
    )
}
