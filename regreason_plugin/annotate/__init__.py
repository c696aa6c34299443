"""Raters, their store and prompts; their scores become one label and one explanation.

What `regreason annotate` goes through, in the order to read it:

| step | modules |
| --- | --- |
| what is asked of whom | `config`, `prompts`, `questions`; rules: `rules`, `rule_features` |
| the run: ask, merge, write | `run`; of a table with labels: `explain` |
| each rater's calls | `lanes` (how many), `ask` (all of them), `client` (one), `answers` |
| where answers are kept | `store`, `calls.sql`, `locks`, `full_disk` |
| scores to a label | `scores`, `aggregate`, `dawid_skene`; `ratings_file`, `provenance` |
| how good they are | `agreement`, `golden`, `label_leaks` |
"""
