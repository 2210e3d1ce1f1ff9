"""The verbs of the package as functions; `stepreward.score` is `stepreward.verbs.score_rows.score`, and so on.

Each takes a path, an address or an object alike. Each file loads only what its verb needs.
"""
