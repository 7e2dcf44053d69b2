"""Executors: what runs a tape. All have one contract, `run(program, inputs)`; `numpy` is the reference."""
