"""What stands in a report and how it looks.

`document` has the blocks and their two renderings, `run` what a report is drawn from, `one_trial`
and `many_trials` what only these have, `shared` what every report has.
"""
