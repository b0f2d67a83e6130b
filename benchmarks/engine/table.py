"""The benchmarks by name; a further one is a file beside this one and a line here."""

# Each module has `run(setting) -> list[Row]`; modules are loaded when they are asked for.
BENCHMARKS = {
    "stage1": "benchmarks.engine.stage1",
    "scvi": "benchmarks.engine.scvi",
    "stage2": "benchmarks.engine.stage2",
    "inference": "benchmarks.engine.inference",
    "tracking": "benchmarks.engine.tracking",
    "h100": "benchmarks.engine.h100",
    "scale": "benchmarks.engine.scale",
    "start": "benchmarks.engine.start",
}
