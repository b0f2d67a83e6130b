"""Real processes that start in no time: forked from one that has imported the slow libraries."""

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch", "mlflow", "sqlalchemy", "cfmvc.registry.promote"])
