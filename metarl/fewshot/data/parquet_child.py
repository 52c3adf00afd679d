"""The program that reads a Parquet file as text, in a process of its own: parquet_child.py FILE MOST_CELLS MOST_BYTES.

It imports nothing of metarl, so that it starts quickly. It writes an Arrow stream of strings to stdout, without the
columns whose cells are no single numbers, words or dates, what these are as a line of JSON to stderr, and ends with 0.
Or it writes the reason, a line, to stderr and ends with `REFUSED`.
"""

import contextlib
import json
import sys
from typing import Any

REFUSED = 3
SEVERAL = "give each entry a column of its own"


def main(path: str, most_cells: int, most_bytes: int) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # systems without such limits
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = most_bytes if hard == resource.RLIM_INFINITY else min(most_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import polars as pl

    try:
        columns, rows = len(pl.read_parquet_schema(path)), pl.scan_parquet(path).select(pl.len()).collect().item()
        if columns * rows > most_cells:
            _refuse(f"claims {rows} rows of {columns} columns, too many for a file of its size")
        texts, unreadable = _texts(pl.read_parquet(path))
        pl.DataFrame(texts).write_ipc_stream(sys.stdout.buffer)
        sys.stderr.write(f"\n{json.dumps(unreadable)}\n")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError, MemoryError) as error:
        _refuse(f"is no Parquet file of numbers and words: {(str(error).splitlines() or [type(error).__name__])[0]}")


def _texts(frame: Any) -> tuple[list[Any], dict[str, str]]:
    """The columns of `frame` as text, and what the others hold, with what to do about it."""
    import polars as pl

    texts, unreadable = [], {}
    for column in frame:
        kind = column.dtype
        if kind.is_nested():
            unreadable[column.name] = f"{'structs' if kind == pl.Struct else 'lists'}: {SEVERAL}"
        elif kind == pl.Duration:
            unreadable[column.name] = "durations: write them as numbers, such as seconds"
        else:
            try:
                text = column.cast(pl.String)
            except pl.exceptions.PolarsError:
                what = "bytes that are no text" if kind == pl.Binary else f"{kind}"
                unreadable[column.name] = f"{what}: write them as words or numbers"
            else:
                texts.append(text.str.strip_chars().fill_null(""))
    return texts, unreadable


def _refuse(reason: str) -> None:
    sys.stderr.write(f"\n{reason}\n")  # the last line: others may be polars's own
    sys.exit(REFUSED)


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose modules are none of the world's
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
