"""Many cells in one go: which model, target, recipe and length for which phone.

`plan` says what is asked, `cell` does one of it in a process of its own, `engine` has Dask's workers do them all, and
`records` keeps what came of each. `page` makes the report of those.
"""
