"""A small GPT-2 vocabulary and its merges."""

TEXT = "The stopwatch doesn't lie: 12 tokens, 3 models,  ünïcode — 日本語.\n\nAgain\tand again, the stopwatch.\n"


def write_gpt2_files(folder, text=TEXT * 8, vocab_size=320):
    """vocab.json and merges.txt in GPT-2's format, learnt from a text; their flags."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([text], vocab_size=vocab_size, min_frequency=2, show_progress=False)
    vocab_file, merge_file = map(str, tokenizer.save_model(str(folder)))
    return {"vocab_file": vocab_file, "merge_file": merge_file}
