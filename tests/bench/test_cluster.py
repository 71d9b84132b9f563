"""A cluster of two workers gives what processes give, and one of them may go."""

import threading
import time

import pytest

from locard.bench import Records, processes, run_bench
from locard.bench.cluster import cluster
from locard.errors import ArtefactError, LocardError, ParameterError

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

# Ray starts a handful of services for a cluster and imports Locard in each worker.
pytestmark = [
    pytest.mark.slow,
    # Its own open sockets and processes at the end of a test.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning",
                               "ignore::DeprecationWarning", "ignore::FutureWarning"),
]  # fmt: skip


@pytest.fixture
def machines():
    """A head that works nothing, and two workers with a processor each."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80_000_000,
                                                          "include_dashboard": False})  # fmt: skip
    workers = [found.add_node(num_cpus=1, object_store_memory=80_000_000) for _ in range(2)]
    found.wait_for_nodes()
    yield found, workers
    ray.shutdown()
    found.shutdown()


def test_two_workers_give_the_same_records_though_one_is_lost(zoo, tmp_path, machines, entries, told):
    found, workers = machines
    assert run_bench(zoo, tmp_path / "here", entries, budgets=(0, 10), runner=processes(1)).whole
    seen = []

    def lose(done, wanted):
        seen.append(done)
        # In the middle of the suspects, with one of them under work.
        if len(seen) == 1 + 8 + 3:
            threading.Thread(target=found.remove_node, args=(workers[0],), kwargs={"allow_graceful": False}).start()
            time.sleep(0.2)

    there = tmp_path / "there"
    assert run_bench(zoo, there, entries, budgets=(0, 10), runner=cluster(found.address), progress=lose).whole
    assert len(found.list_all_nodes()) == 2
    assert told(Records.read(there / "records.parquet")) == told(Records.read(tmp_path / "here" / "records.parquet"))


def refuse(task):
    raise ParameterError(f"no {task}")


def test_an_error_in_a_worker_arrives_as_it_is(machines):
    with pytest.raises(LocardError, match="no suspect"):
        list(cluster(machines[0].address)(refuse, {"a": "suspect"}, until=None))


def test_time_that_is_over_begins_nothing(machines):
    assert list(cluster(machines[0].address)(refuse, {"a": "suspect"}, until=time.monotonic())) == []


def test_a_process_that_is_connected_already_is_told(machines):
    ray.init(address=machines[0].address, log_to_driver=False)
    with pytest.raises(
        ArtefactError, match=r"connected to a Ray cluster already; ray.shutdown\(\) before 'elsewhere:1'"
    ):
        cluster("elsewhere:1")


def die(task):
    import os

    os._exit(1)


def test_a_task_that_kills_its_workers_ends_the_bench(machines, monkeypatch):
    monkeypatch.setattr("locard.bench.cluster._RETRIES", 1)
    with pytest.raises(ArtefactError, match="has ended 2 workers, perhaps for want of memory; what was done is kept"):
        list(cluster(machines[0].address)(die, {"a": "suspect"}, until=None))


def test_no_cluster_is_one_clear_error():
    with pytest.raises(ArtefactError, match="no Ray cluster at 'auto'"):
        list(cluster("auto")(refuse, {"a": "suspect"}, until=None))
