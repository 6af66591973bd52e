"""What stands in a report and how it looks.

`document` has the blocks and their two renderings, `run` what a report is drawn from. The other
files have the sections: `one_trial` and `many_trials` what only these have, `comparisons` what the
differences support, `sweeps` the grid of factors, tuning and time, `agreement` the mistakes that
variants share, `inside` kernels and feature maps, `shared` what every report has. What belongs to
the paper of 1998: `paper` its numbers beside ours, `bitmaps` what f6 draws, `distorted` its images.
`look` has the page of `lenet.look`.
"""
