"""Questions that a search should answer with a file and its lines, derived by rule from code and manuals at hand.

    python -m benchmarks.questions FOLDER

writes each collection to FOLDER/NAME and all questions to FOLDER/questions.jsonl. `benchmarks/grep_quality.py` measures with them.

stdlib    Modules of Python's standard library (PSF licence) without the docstrings of their functions. A question is the first
          sentence of one of these docstrings, the answer the lines of its function.
topics    The pages of `help()` on the language (`pydoc_data.topics`, PSF licence) without the headings that are asked for. A question
          is such a heading, the answer the section under it.
manual    This repository's README and docs, in the same way ("headings"); and the queries of `small_queries.tsv` that people wrote
          ("written"), whose answer is a whole page.

Half of the questions, by a hash of their words, are for choosing; the others are kept as a test: nothing is chosen by them, and
no model is trained on any of these texts.
"""
