"""Tables as text that others read: CSV with every digit, LaTeX and Markdown to four significant ones."""

from idealized_runtime.checks import printable

_SPACES = {ord("\n"): " ", ord("\t"): " "}


def table_text(frame, suffix: str) -> str:
    """A table as the text of a file of this ending: ``.csv``, ``.tex`` or ``.md``."""
    match suffix:
        case ".csv":
            return frame.to_csv(index=False)
        case ".tex":
            return frame.to_latex(index=False, float_format="%.4g", escape=True)
        case ".md":
            return markdown_table(frame)
    raise ValueError(f"a table is text in .csv, .tex and .md; got {suffix!r}")


def markdown_table(frame) -> str:
    """A table in Markdown, numbers to four significant digits."""
    cells = frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None)
    rows = [list(frame), ["---"] * frame.shape[1], *(map(as_cell, row) for row in cells)]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def as_cell(value) -> str:
    """A value in a cell: numbers to four significant digits, a dash for what is missing, texts on one line."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value).translate(_SPACES))
