"""What models run on: accelerators with dated sources, prices, rates and rooflines."""
