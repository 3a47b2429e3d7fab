"""What can be wrong with a mail server and its surroundings, for `setup`, `doctor`, `dns` and `status`.

Three steps that know little of each other: `probes` look and never judge, `Facts` is what they saw,
and `table` is a list of small pure functions `(Facts) -> Finding`.
"""
