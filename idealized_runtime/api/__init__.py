"""Models behind APIs that speak OpenAI's protocol: timed with prompts of known size, every request kept.

``endpoint`` is where requests go, ``prompts`` makes prompts of exactly so many tokens; ``client`` sends one request and
``answers`` reads what comes back; ``trials`` makes the record, within a ``budget``. ``profile`` sweeps sizes,
``load`` numbers of parallel requests and rates, both by ``runner`` into a journal of
:mod:`idealized_runtime.records`.
``statistics`` sums requests up, ``validity`` says what speaks against that (two populations by the dip of
``unimodality``), ``changes`` tests what differs from last time.
"""
