"""The site file: what a cluster says of itself, written, read again, and kept where edited."""

import pytest

from plans.source import SpecError, UserError
from slurm.probe import ask, read_answers
from slurm.site import (
    FILE_NAME,
    NodeType,
    OursSpec,
    Partition,
    Quality,
    WallTime,
    find_site,
    read_site,
    renewed,
    site_text,
)
from tests.runs import ROOT
from tests.slurm.answers import LIMITED, RECORDED


def written(folder, text):
    path = folder / FILE_NAME
    path.write_text(text)
    return path


@pytest.mark.parametrize("answers", [RECORDED, LIMITED])
def test_a_site_is_read_again_as_it_was_written(answers, tmp_path):
    site = read_answers(answers)
    assert read_site(written(tmp_path, site_text(site))) == site
    assert find_site(tmp_path) == site
    assert find_site(tmp_path / "elsewhere") is None


def test_a_new_file_shows_how_people_may_add_to_it():
    text = site_text(read_answers(RECORDED))
    assert "\n# ours:\n" in text
    assert "\nours:" not in text


def test_the_file_in_the_documentation_is_a_site(tmp_path):
    text = (ROOT / "docs" / "clusters.md").read_text()
    site = read_site(written(tmp_path, text.split("```yaml\n")[1].split("```")[0]))
    assert site.partitions["batch"].longest_seconds(91) == 2 * 3600
    assert site.ours.container.image == "/shared/rlplan.sif"


def test_the_recorded_cluster_is_four_nodes_of_eight_gpus():
    site = read_answers(RECORDED)
    assert (site.name, site.slurm, site.accounting, site.enforced) == ("lab", "22.05.8", True, ())
    assert site.default_partition == "debug"
    kind = NodeType(nodes=4, cpus=64, memory_mib=512_000, gpus=8, gpu="h100")
    assert site.partitions["debug"].node_types == (kind,)
    assert site.partitions["debug"].longest_seconds(4) is None
    assert site.mpi.types == ("pmix", "none", "cray_shasta", "pmi2", "pmix_v4")
    assert (site.account_names(), site.qos_names()) == (("root",), ("normal",))


def test_limits_of_partitions_accounts_and_qualities_are_found():
    site = read_answers(LIMITED)
    large, small, old = site.partitions.values()
    assert (large.accounts, large.qos, large.min_nodes) == (("chem", "phys"), ("normal", "long"), 2)
    assert (large.most_nodes(), large.longest_seconds(1000)) == (1024, 2 * 86400)
    assert (small.accounts, small.denied_accounts, small.denied_qos) == (
        None,
        ("guests",),
        ("long",),
    )
    assert [kind.gpu for kind in small.node_types] == ["mi250", "a100"]
    assert (small.gpus_per_node(), old.gpus_per_node(), old.up) == (8, 0, False)
    assert large.node_types[0].features == ("AMD_EPYC_7A53", "x1101")
    assert site.qos["long"] == Quality(
        time="2-00:00:00", max_nodes=2, max_gpus=16, max_running=1, max_queued=10
    )
    chem = site.accounts[0]
    assert (chem.partition, chem.max_nodes, chem.max_running) == ("standard-g", 8, 4)
    assert (site.requeue, site.enforced[0], site.mpi.types[0]) == (False, "associations", "pmi2")


def test_an_account_of_one_partition_is_none_of_another():
    site = read_answers(LIMITED)
    assert site.account_names("standard-g") == ("chem", "phys")
    assert site.account_names("dev-g") == ("phys",)
    assert site.qos_names("phys") == ("normal",)


def test_wall_time_by_node_count_is_the_step_the_job_falls_into():
    partition = Partition(
        nodes=9000,
        time="12:00:00",
        walltime_by_nodes=(
            WallTime(nodes=183, time="6:00:00"),
            WallTime(nodes=91, time="2:00:00"),
        ),
    )
    hours = [partition.longest_seconds(nodes) / 3600 for nodes in (1, 91, 92, 183, 184)]
    assert hours == [2, 2, 6, 6, 12]


def test_another_probe_keeps_what_people_wrote_and_renews_the_rest():
    probed = read_answers(RECORDED)
    steps = (WallTime(nodes=2, time="1:00:00"),)
    old = {**probed.partitions, "debug": Partition(nodes=1, walltime_by_nodes=steps)}
    kept = probed.model_copy(update={"partitions": old, "ours": OursSpec(mpi="pmi2")})
    after = renewed(probed, kept)
    assert after.ours.mpi == "pmi2"
    assert after.partitions["debug"].walltime_by_nodes == steps
    assert (after.partitions["debug"].nodes, list(after.partitions)) == (4, ["debug", "high"])


def test_mistakes_in_the_file_are_told_with_their_lines(tmp_path):
    text = "format: 1\nname: lab\nslurm: '22'\npartitons: {}\nours: {mpi: 3, enviroment: {}}\n"
    with pytest.raises(SpecError) as error:
        read_site(written(tmp_path, text))
    lines = [line.partition(FILE_NAME)[2] for line in str(error.value).splitlines()]
    assert lines == [
        ":4: partitons: unknown key; did you mean 'partitions'?",
        ":5: ours.enviroment: unknown key; did you mean 'environment'?",
        ":5: ours.mpi: expected text, got 3; put it in quotes",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mpi", '"pmi2\\nrm -rf ."'),
        ("environment", '{A: "x\\ny"}'),
        ("environment", "{'A;id': x}"),
        ("skip_checks", '["a\\tb"]'),
    ],
)
def test_control_characters_and_names_that_are_none_are_refused(key, value, tmp_path):
    text = f"format: 1\nname: lab\nslurm: '22'\npartitions: {{}}\nours: {{{key}: {value}}}\n"
    with pytest.raises(SpecError, match=rf"cluster.yaml:5: ours\.{key}"):
        read_site(written(tmp_path, text))


def test_a_file_that_expands_or_nests_without_end_is_refused(tmp_path):
    with pytest.raises(SpecError, match="aliases are not accepted"):
        read_site(written(tmp_path, "a: &a [x]\nb: *a\n"))
    with pytest.raises(SpecError, match="nested too deeply"):
        read_site(written(tmp_path, "a: " + "[" * 40 + "]" * 40))


def test_without_slurm_the_answer_says_where_to_run_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no scontrol here; run this on a login node"):
        ask("me")


def test_a_controller_that_is_down_is_named():
    with pytest.raises(UserError, match="is slurmctld running"):
        read_answers(LIMITED.__class__(config="", partitions="", nodes="", mpi=""))


@pytest.mark.slurm
def test_a_real_cluster_is_probed_with_its_accounts(cluster):
    def run(*command):
        done = cluster._run(*command)
        return done.stdout + done.stderr

    site = read_answers(ask(cluster.lab.user, run))
    assert {"debug", "short", "urgent"} <= set(site.partitions)
    assert site.partitions["debug"].time == "2-00:00:00"
    assert site.partitions["short"].max_nodes == 1
    assert {"physics", "biology"} <= set(site.account_names())
    assert {"normal", "long"} <= set(site.qos_names("physics"))
    assert "associations" in site.enforced
    assert "pmi2" in site.mpi.types


@pytest.mark.slurm
def test_a_cluster_without_accounting_is_probed_too(bare_cluster):
    def run(*command):
        done = bare_cluster._run(*command)
        return done.stdout + done.stderr

    site = read_answers(ask(bare_cluster.lab.user, run))
    assert (site.accounting, site.accounts) == (False, ())
    assert site.partitions["short"].max_nodes == 1
