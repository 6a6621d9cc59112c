"""Plans for machines that need not exist: nothing is allocated, and no process group is joined."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torchrec.distributed.types import ParameterSharding

from models.config import ModelConfig
from models.ranker import Ranker
from pipeline.errors import StrataError
from pipeline.manifest import Manifest
from pipeline.training.tables.config import TablesConfig
from pipeline.training.tables.plan import make_plan, prepare_tables, sharder
from pipeline.training.tables.plan_inputs import PlanInputs

GB = 10**9
CUDA = PlanInputs(
    device="cuda",
    ranks=4,
    ranks_here=4,
    rows=4096,
    lengths={"tags": 3.0},
    hbm=20 * GB,
    ddr=200 * GB,
    dense=GB,
    dense_copies=700 * 10**6,
)
CPU = replace(CUDA, device="cpu", hbm=0)
MANY = 100_000_000  # rows of 16 numbers, 6.4 GB

Plan = Callable[..., tuple[dict[str, ParameterSharding], str]]


@pytest.fixture
def plan(manifest: Manifest) -> Plan:
    """`plan(inputs, rows={"user": 10**9}, weights="fp16")`: what each table is given, and the text."""

    def make(
        inputs: PlanInputs, rows: dict[str, int] | None = None, **options: object
    ) -> tuple[dict[str, ParameterSharding], str]:
        config = TablesConfig.model_validate(options)
        sizes = manifest.learned.table_rows | (rows or {})
        ranker = Ranker(manifest.spec, sizes, ModelConfig(), torch.device("meta"))
        prepare_tables(ranker, config, inputs.device)
        made = make_plan(ranker, config, inputs)
        (module,) = made.sharding.plan.values()
        assert isinstance(module, dict)
        assert module.keys() == manifest.spec.tables.keys()
        return module, made.text

    return make


def line(text: str, table: str) -> list[str]:
    """The figures of a table in the text."""
    (found,) = [line.split() for line in text.splitlines() if line.startswith(f"{table} ")]
    return found


def why(text: str, table: str) -> str:
    (found,) = [line.strip() for line in text.splitlines() if line.startswith(f"  {table}: ")]
    return found.removeprefix(f"{table}: ")


def test_a_table_is_in_the_memory_that_it_is_allowed(plan: Plan):
    everywhere, _ = plan(CUDA, kernels=["fused_uvm_caching"], cache_load_factor=0.3)
    assert {table.compute_kernel for table in everywhere.values()} == {"fused_uvm_caching"}
    assert {table.cache_params.load_factor for table in everywhere.values()} == {0.3}
    one, text = plan(CUDA, kernel_overrides={"video": "fused_uvm"})
    assert one["video"].compute_kernel == "fused_uvm"
    assert {table.compute_kernel for name, table in one.items() if name != "video"} <= {"fused", "dense"}
    assert why(text, "video").startswith("fixed by --tables.kernel-overrides")


def test_a_table_too_large_for_the_device_goes_to_the_machine_if_it_may(plan: Plan):
    rows = {"user": 10 * MANY}  # 64 GB, and 16 GB on each rank
    kernels = ["fused", "fused_uvm_caching", "fused_uvm"]
    spilled, text = plan(replace(CUDA, hbm=10 * GB), rows, kernels=kernels)
    assert spilled["user"].compute_kernel == "fused_uvm_caching"
    assert {table.compute_kernel for name, table in spilled.items() if name != "user"} <= {"fused", "dense"}
    assert why(text, "user").startswith("the fastest that fits. Else: row_wise 0.")
    assert "does not fit" in why(text, "user")
    roomy, _ = plan(replace(CUDA, hbm=40 * GB), rows, kernels=kernels)
    assert roomy["user"].compute_kernel == "fused"
    with pytest.raises(StrataError, match=r"--tables.kernel-overrides user fused_uvm_caching"):
        plan(replace(CUDA, hbm=10 * GB), rows)


def test_columns_are_divided_no_narrower_than_said(plan: Plan, manifest: Manifest):
    for width, shards in ((4, 4), (8, 2), (12, 1), (16, 1)):
        divided, _ = plan(CUDA, overrides={"user": "column_wise"}, column_width=width)
        user = divided["user"]
        assert user.sharding_type == "column_wise"
        assert [shard.shard_sizes for shard in user.sharding_spec.shards] == [[20_000, 16 // shards]] * shards


@pytest.mark.parametrize("inputs", [CPU, CUDA], ids=["cpu", "cuda"])
def test_what_the_planner_counts_is_what_tables_take(plan: Plan, inputs: PlanInputs):
    """100 million rows of 16 numbers and one of Adagrad's; the batch is next to nothing beside them.

    The copy has both; on CUDA each is pinned: 6.4 GB take 2^33 bytes, 3.2 GB 2^32, 1.6 GB 2^31, 400 MB 2^29, 100 MB
    2^27.
    """

    def figures(**options: object) -> list[str]:
        return line(plan(inputs, {"user": MANY}, **options)[1], "user")

    copies = ["6.8", "3.6", "1.7", "3.6"] if inputs is CPU else ["9.1", "4.8", "2.3", "4.8"]
    whole = figures(overrides={"user": "table_wise"})
    assert whole[1:4] == ["100,000,000", "16", "table_wise"]
    assert whole[6:11] == ["fp32", "6.4", "GB", "400.0", "MB"]
    assert whole[13:15] == [copies[0], "GB"]
    half = figures(overrides={"user": "table_wise"}, weights="fp16")
    assert half[6:11] == ["fp16", "3.2", "GB", "400.0", "MB"]
    assert half[13:15] == [copies[1], "GB"]
    rows = figures(overrides={"user": "row_wise"})
    assert rows[7:11] == ["1.6", "GB", "100.0", "MB"]
    assert rows[13:15] == [copies[2], "GB"]
    # Two ranks have eight columns each, and a sum for each row.
    columns = figures(overrides={"user": "column_wise"}, column_width=8)
    assert columns[7:11] == ["3.2", "GB", "400.0", "MB"]
    assert columns[13:15] == [copies[3], "GB"]


@pytest.mark.parametrize("kernel", ["fused", "fused_uvm_caching", "fused_uvm"])
def test_a_copy_is_in_the_machine_wherever_its_table_is(plan: Plan, kernel: str):
    """On each of 4 ranks 1.6 GB and 100 MB take 2^31 and 2^27 bytes; those of the other tables are next to nothing."""
    text = plan(CUDA, {"user": MANY}, kernels=[kernel], overrides={"user": "row_wise"})[1]
    assert line(text, "user")[13:15] == ["2.3", "GB"]
    machine = [row.partition("; machine ")[2] for row in text.splitlines() if row.startswith("  rank ")]
    expected = ["3.0 GB copies, of 200.0 GB", *3 * ["2.3 GB copies, of 200.0 GB"]]
    assert [row.split(" + ")[1] for row in machine] == expected
    with pytest.raises(StrataError, match=r"20\.0 GB on the device and 3\.0 GB in the machine"):
        plan(replace(CUDA, ddr=3 * GB), {"user": MANY}, kernels=[kernel], overrides={"user": "row_wise"})


@pytest.mark.parametrize("inputs", [CPU, CUDA], ids=["cpu", "cuda"])
def test_totals_are_those_of_the_tables(plan: Plan, inputs: PlanInputs):
    """A replicated table has its weights, sums, gradient and the gradient's squares on every rank; one has the copies.

    Those are 0.68 GB and the dense part's 0.7; pinned, 2^30 and 2^26 bytes and the dense part's 0.7.
    """
    _, text = plan(inputs, {"user": 10_000_000}, sharding=["data_parallel"])
    assert line(text, "user")[7:11] == ["640.0", "MB", "1.3", "GB"]
    ranks = [line for line in text.splitlines() if line.startswith("  rank ")]
    assert len(ranks) == 4
    for rank, copies in zip(ranks, ["1.4 GB" if inputs is CPU else "1.8 GB", "0 B", "0 B", "0 B"], strict=True):
        assert " 2.0 GB tables + 1.0 GB dense part" in rank  # 3 x 0.64 GB of numbers, 0.04 GB of sums
        assert f" + {copies} copies, of 200.0 GB" in rank


def test_reasons_are_those_of_the_choice(plan: Plan):
    _, text = plan(CPU, {"user": MANY}, overrides={"page": "row_wise"})
    assert why(text, "page") == "fixed by --tables.overrides"
    assert why(text, "user").startswith("the fastest. Else: ")
    for other in ("table_wise", "data_parallel"):
        assert f"{other} " in why(text, "user")
    _, text = plan(CPU, {"user": 10 * MANY}, sharding=["table_wise", "data_parallel"])
    assert why(text, "user").startswith("only this fits. Else: data_parallel ")
    assert why(text, "user").endswith("192.0 GB, does not fit") or "does not fit" in why(text, "user")
    _, text = plan(CPU, sharding=["table_wise"])
    assert why(text, "user") == "nothing else is allowed"


@pytest.mark.parametrize("inputs", [CPU, CUDA], ids=["cpu", "cuda"])
def test_tables_that_do_not_fit_are_refused_with_the_numbers(plan: Plan, inputs: PlanInputs):
    """100 billion rows would be 6.4 TB of weights, 0.4 of sums, and their copies; on CUDA, 2^43 and 2^39 bytes."""
    with pytest.raises(StrataError) as caught:
        plan(inputs, {"user": 100_000_000_000})
    message = str(caught.value)
    need, largest = ("13.6 TB", "13.6 TB") if inputs is CPU else ("16.2 TB", "16.1 TB")  # 4.7 GB are between them
    memory = "200.0 GB" if inputs is CPU else "20.0 GB on the device and 200.0 GB in the machine"
    assert message.startswith(
        f"--tables: do not fit: at least {need} needed for 4 ranks on {inputs.device} together, with copies for "
        f"checkpoints (largest table `user` {largest}, dense part 1.0 GB on each), where each has {memory}, of which "
        "10% is kept free; use more ranks or smaller tables"
    )
    assert ("--tables.weights fp16" in message) == (inputs is CPU)


def test_a_dense_part_that_does_not_fit_is_refused(plan: Plan):
    with pytest.raises(StrataError, match=r"dense part 150\.0 GB on each\), where each has 100\.0 GB"):
        plan(replace(CPU, ddr=100 * GB, dense=150 * GB))
    # On the first rank one_rank, beside tables that the other ranks could hold.
    with pytest.raises(StrataError, match=r"dense part 50\.0 GB on each\), where each has 100\.0 GB"):
        plan(replace(CPU, ddr=100 * GB, dense=50 * GB, dense_copies=50 * GB), sharding=["table_wise"])


def test_room_is_kept_free(plan: Plan):
    """200 GB on one rank are 180 for the tables, 1 for the dense part, and 0.7 for its copies."""
    one_rank = replace(CPU, ranks=1, ranks_here=1)
    megabyte = 10**6 // (2 * 68)  # rows of 16 numbers and one of Adagrad's, with a copy of all
    plan(one_rank, {"user": 178_000 * megabyte})
    with pytest.raises(StrataError, match="1 rank on cpu"):
        plan(one_rank, {"user": 178_700 * megabyte})


def test_with_less_precise_weights_only_overrides_replicate(plan: Plan):
    tables, text = plan(CPU, weights="fp16", overrides={"page": "data_parallel"})
    assert [name for name, table in tables.items() if table.sharding_type == "data_parallel"] == ["page"]
    assert line(text, "page")[6] == "fp32"
    assert line(text, "hour")[6] == "fp16"
    precise, _ = plan(CPU)
    assert len([table for table in precise.values() if table.sharding_type == "data_parallel"]) > 1


@pytest.mark.parametrize(("device", "precision"), [("cpu", "fp16"), ("cuda", "fp16"), ("cuda", "bf16")])
def test_embeddings_and_gradients_travel_as_configured(device: str, precision: str):
    assert sharder(TablesConfig(), device, rows=100).qcomm_codecs_registry is None
    config = TablesConfig.model_validate({"communication": precision})
    codecs = sharder(config, device, rows=1000).qcomm_codecs_registry
    assert codecs is not None
    assert {"POOLED_EMBEDDINGS_ALL_TO_ALL", "POOLED_EMBEDDINGS_REDUCE_SCATTER"} <= codecs.keys()
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    for codec in codecs.values():
        embeddings, gradients = torch.linspace(-3, 3, 100), torch.linspace(1e-8, 3e-8, 100)  # 0 in fp16, if not scaled
        for way, numbers in ((codec.forward, embeddings), (codec.backward, gradients)):
            assert way.encode(numbers).dtype == dtype
            torch.testing.assert_close(way.decode(way.encode(numbers)), numbers, rtol=0.01, atol=0)
