"""Raters score conversations; the scores and explanations become one label and one explanation.

The steps of `regreason annotate`, in reading order:

| step | modules |
| --- | --- |
| raters and prompts | `config`, `prompts`, `questions`; rule raters: `rules`, `rule_features` |
| the run: ask, merge, write | `run`; for a table that has labels already: `explain` |
| calls to a rater | `lanes` (number of calls), `ask` (all calls), `client` (one call), `answers` |
| the store of answers | `store`, `calls.sql`, `locks`, `full_disk` |
| from scores to a label | `scores`, `aggregate`, `dawid_skene`; `ratings_file`, `provenance` |
| quality of the ratings | `agreement`, `golden`, `label_leaks` |
"""
