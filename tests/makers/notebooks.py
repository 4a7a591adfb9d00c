"""What keeps a notebook from being committed."""

import re

import nbformat

# "/" that begins a path of two parts or more; what stands before it rules out URLs and closing tags.
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<~*])/(?!/)[\w.~-]+/[\w.~-]+|\b[A-Za-z]:\\\w")


def committed_notebook_faults(path) -> list[str]:
    """What keeps a notebook from being committed; empty for one that was executed from the top.

    Returns
    -------
    list of str
        A sentence a fault: a cell without execution or out of order, an error among the outputs, an
        absolute path in an output, a timestamp, a cell over 12 lines, a function definition.
    """
    notebook = nbformat.read(path, as_version=4)
    faults = []
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(code_cells, start=1):
        where = f"{path}: code cell {number}"
        if cell.execution_count != number:
            faults.append(f"{where} has execution count {cell.execution_count}; run the notebook from the top")
        if len(cell.source.splitlines()) > 12:
            faults.append(f"{where} has over 12 lines; move code into the package")
        if re.search(r"^\s*(async\s+)?def |^\s*class |import \*", cell.source, flags=re.MULTILINE):
            faults.append(f"{where} defines a function or class, or imports *; move code into the package")
        if set(cell.metadata) & {"execution", "papermill"}:
            faults.append(f"{where} has timestamps in its metadata")
        faults += [f"{where} {fault}" for output in cell.outputs for fault in _output_faults(output)]
    if "papermill" in notebook.metadata:
        faults.append(f"{path}: has timestamps of papermill in its metadata")
    return faults


def _output_faults(output) -> list[str]:
    if output.output_type == "error":
        return [f"ends in an error: {output.ename}: {output.evalue}"]
    data = output.get("data", {})
    texts = [output.get("text", "")] + [text for kind, text in data.items() if kind.startswith("text/")]
    found = [match[0] for text in texts if (match := _ABSOLUTE_PATH.search(text))]
    return [f"has an absolute path in its output: {found_path}" for found_path in found[:1]]
