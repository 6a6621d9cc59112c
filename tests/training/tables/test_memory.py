import math
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from models.config import ModelConfig
from models.ranker import Ranker
from pipeline.columns import feature_column
from pipeline.manifest import Manifest
from pipeline.training.tables.memory import copy_memory, dense_copies, dense_memory, host_memory
from pipeline.training.tables.plan_inputs import mean_lengths

MB = 2**20


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A machine with 800 MB left."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text("MemTotal: 1024000 kB\nMemFree: 1000 kB\nMemAvailable: 819200 kB\n")
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, content in files.items():
        (root / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / name).write_text(content)
    return root


def group(limit: int | str, use: int, cache: int = 0, place: str = "") -> dict[str, str]:
    """Of version 2, in MB."""
    size = limit if isinstance(limit, str) else limit * MB
    stat = f"anon {use * MB}\ninactive_file {cache * MB}\n"
    return {f"{place}memory.max": f"{size}\n", f"{place}memory.current": f"{use * MB}\n", f"{place}memory.stat": stat}


@pytest.mark.parametrize(
    ("groups", "files", "left"),
    [
        ("", {}, 800),
        ("0::/\n", group("max", 900), 800),
        ("0::/\n", group(500, 200), 300),
        ("0::/\n", group(500, 480, cache=80), 100),
        ("0::/\n", group(500, 600), 0),
        ("0::/\n", group(5000, 200), 800),
        ("0::/a/b\n", group("max", 50, place="a/b/") | group(400, 50, place="a/"), 350),
        ("0::/a/b\n", group(100, 50, place="a/b/") | group(400, 50, place="a/"), 50),
        ("0::/elsewhere\n", group(500, 200), 300),  # inside of a container
        (
            "9:cpu:/x\n4:memory:/x\n",
            {
                "memory/x/memory.limit_in_bytes": f"{600 * MB}",
                "memory/x/memory.usage_in_bytes": f"{500 * MB}",
                "memory/x/memory.stat": f"inactive_file 1\ntotal_inactive_file {20 * MB}\n",
            },
            120,
        ),
    ],
)
def test_memory_is_what_the_machine_and_its_containers_leave(
    tmp_path: Path, groups: str, files: dict[str, str], left: int
):
    assert host_memory(machine(tmp_path, groups, files)) == left * MB


def test_this_machine_has_some():
    assert 2**20 < host_memory() < 2**50


def test_the_dense_part_is_its_parameters_four_times_and_what_a_step_keeps(manifest: Manifest):
    """The activations are those of a real forward pass over as many rows, with random numbers as embeddings."""
    config = ModelConfig(head="mmoe", expert=(32, 16), dropout=0.1, norm="layer")
    ranker = Ranker(manifest.spec, manifest.learned.table_rows, config, torch.device("meta"))
    dense = [p for name, p in ranker.named_parameters() if not name.startswith("embeddings.")]
    assert dense_memory(ranker.network, 0) == 16 * sum(p.numel() for p in dense)

    rows = 100
    x = torch.randn(rows, ranker.network.d_in, requires_grad=True)
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = ranker.network(x)
    parameters = {p.untyped_storage().data_ptr() for p in dense}
    activations = sum(storage.nbytes() for place, storage in kept.items() if place not in parameters)
    found = dense_memory(ranker.network, rows) - 16 * sum(p.numel() for p in dense)
    assert found == activations + outputs.nbytes


def test_copies_of_the_dense_part_are_what_a_checkpoint_has_of_it(manifest: Manifest):
    """What Adam has after a step, and the parameters; pinned, each tensor takes a power of two."""
    ranker = Ranker(manifest.spec, manifest.learned.table_rows, ModelConfig(head="mmoe"), torch.device("meta"))
    adam = torch.optim.Adam(ranker.network.parameters(), fused=True)
    ranker.network(torch.randn(3, ranker.network.d_in)).sum().backward()
    adam.step()
    states = [tensor.nbytes for state in adam.state.values() for tensor in state.values()]
    sizes = [tensor.nbytes for tensor in ranker.network.state_dict().values()] + states
    assert len(sizes) == 4 * len(list(ranker.network.parameters()))
    assert dense_copies(ranker.network, "cpu") == sum(sizes)
    assert dense_copies(ranker.network, "cuda") == sum(2 ** math.ceil(math.log2(size)) for size in sizes)
    assert [copy_memory(size, "cuda") for size in (0, 1, 4096, 4097)] == [0, 1, 4096, 8192]


def test_lengths_are_those_of_the_training_rows(manifest: Manifest, samples: Path, tmp_path: Path):
    table = pq.read_table([samples / file.path for file in manifest.files if file.split == "train"])
    lengths = mean_lengths(manifest.spec, samples)
    assert len(lengths) >= 2
    for feature, length in lengths.items():
        counted = pc.fill_null(pc.list_value_length(table[feature_column(feature)]), 0)
        assert length == pytest.approx(pc.mean(counted).as_py())
        assert length > 0
    without_statistics = mean_lengths(manifest.spec, tmp_path)
    assert without_statistics.keys() == lengths.keys()
    assert all(without_statistics[feature] >= length for feature, length in lengths.items())
