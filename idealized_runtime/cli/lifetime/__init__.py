"""What should be trained? Sizes a language model for its whole life: training it, then serving it.

A scaling law L(N, D) = E + A / N^alpha + B / D^beta says how good a model of N parameters is after D training
tokens. Many pairs (N, D) reach one loss; training alone is cheapest at the Chinchilla size, training and
serving together at a smaller one that is trained longer.

Flags may be spelled with underscores, as arXiv:2401.00448's scripts spell them. Sizes beyond the training runs of a
scaling law are warned of, and refused a hundred times below or 1e5 times above them.
"""
