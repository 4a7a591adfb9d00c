"""What a test asks of drawn axes."""


def lines_by_label(ax):
    return {line.get_label(): line for line in ax.lines}
