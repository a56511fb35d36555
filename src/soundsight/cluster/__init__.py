"""Several machines: the same work as on one, given out by Ray. The only room that imports Ray.

`connect` finds a cluster, `probe` checks its nodes, `pool` keeps a worker on each core or GPU and a bounded number
of jobs in flight, `listing` and `storage` hold what goes in and out, `shards` writes answers exactly once,
`supervise` outlives the head of the cluster. Importing this room loads neither Ray nor PyArrow.
"""
