"""The same work as on one machine, as Ray tasks on several. The only package that imports Ray.

`connect` joins a cluster, `nodes` checks its nodes, `tasks` applies a function to many items there; `listing`,
`storage` and `shards` hold what goes in and out of `predictions`. Importing this package loads no Ray.
"""
