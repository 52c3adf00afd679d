"""Texts as inputs: hashed n-grams (Weinberger et al. 2009, "Feature hashing for large scale multitask learning")."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.data.columns import Reading
from metarl.fewshot.data.numerals import UNSPACED
from metarl.fewshot.data.table_file import TextTable

NGRAMS: dict[str, tuple[str, tuple[int, int]]] = {"words": ("word", (1, 1)), "characters": ("char_wb", (2, 4))}
"""What is counted: scikit-learn's analyzer, and the lengths of the n-grams. Pairs of words seldom come back."""
LENGTH = 4.0
"""Norm of an encoded text: that of sixteen standardised numbers."""


@dataclass(frozen=True)
class TextColumn:
    """Free text: counts of n-grams, each at the place and with the sign of its hash, scaled to `LENGTH`.

    Nothing is learned from the cells, so that any text can be read later. It needs scikit-learn.

    >>> import polars as pl
    >>> from pathlib import Path
    >>> from metarl.fewshot.data.columns import Reading
    >>> from metarl.fewshot.data.table_file import TextTable
    >>> from metarl.fewshot.data.text_columns import TextColumn
    >>> table = TextTable(Path("notes.csv"), pl.DataFrame({"note": ["no fever", "high fever"]}), range(1, 3))
    >>> TextColumn("note", 64).encode(table, Reading()).square().sum(1).round()  # needs scikit-learn
    tensor([16., 16.])
    """

    role: ClassVar[Literal["text"]] = "text"
    name: str
    width: int
    """Inputs of the network (W)."""
    by: Literal["words", "characters"] = "words"
    """Words, or n-grams of 2 to 4 characters within words."""
    description: str = ""

    @property
    def labels(self) -> list[str]:
        """What each input is."""
        return [f"{self.name}, n-grams {number}" for number in range(self.width)]

    @property
    def is_numeric(self) -> list[bool]:
        """Whether each input is to be standardised."""
        return [False] * self.width

    def encode(self, table: TextTable, reading: Reading) -> Float[Tensor, "n W"]:
        """The column of `table` as inputs; a missing text is all zeros. Raises `UsageError` without scikit-learn."""
        try:
            from sklearn.feature_extraction.text import HashingVectorizer
        except ImportError:
            raise UsageError("--text needs scikit-learn, which is missing: pip install 'metarl-kit[tables]'") from None
        analyzer, lengths = NGRAMS[self.by]
        hashing = HashingVectorizer(n_features=self.width, analyzer=analyzer, ngram_range=lengths, dtype="float32")
        cells = table.cells(self.name)
        texts = cells.set(~reading.present(cells), "").to_list()
        return torch.from_numpy(hashing.transform(texts).toarray()) * LENGTH


def read_text(table: TextTable, name: str, width: int, by: Literal["words", "characters"]) -> TextColumn:
    """The column `name` as free text; raises `UsageError` for words of a script that does not separate them."""
    cells = table.cells(name)
    unspaced, letters = (int(cells.str.count_matches(pattern).sum() or 0) for pattern in (UNSPACED, r"\pL"))
    if by == "words" and 2 * unspaced > letters:
        raise UsageError(
            f"{table.path}: column {name!r} is in a script without spaces between words, such as {cells[0][:20]!r}: "
            f"read it with --text-by characters"
        )
    lengths = cells.str.count_matches(r"\w+").to_numpy()
    hashed = "words" if by == "words" else "n-grams of characters"
    what = f"free text of {lengths.min()} to {lengths.max()} words: {width} inputs of hashed {hashed}"
    silent = int((cells.str.count_matches(r"\w\w") == 0).sum())  # what scikit-learn takes for words
    if by == "words" and silent:
        what += f"; {silent} of {len(cells)} have no word of two letters, and read as nothing"
    return TextColumn(name, width, by, what)
