"""Pipelines as code: what they run are make targets that exist, and what they hold is never a shell's code."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEKTON = sorted((ROOT / "k8s" / "tekton").glob("*.yaml"))
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def steps(workflow):
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        yield from job["steps"]


def made_by(workflow):
    commands = [step["run"] for step in steps(workflow) if step.get("run", "").startswith("make ")]
    return [target for command in commands for target in targets(command.removeprefix("make "))]


def targets(words):
    return [word for word in words.split() if "=" not in word and not word.startswith(("$", '"', "#"))]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_make_targets_that_exist(workflow):
    made = [
        targets(step["run"].removeprefix("make "))
        for step in steps(workflow)
        if step.get("run", "").startswith("make ")
    ]
    assert made
    assert {target for words in made for target in words} <= TARGETS


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_values_reach_the_commands_of_a_workflow_through_the_environment(workflow):
    """Guards against a branch or a variable whose name is a command."""
    assert [step["run"] for step in steps(workflow) if "${{" in step.get("run", "")] == []


def pipelines():
    return [
        manifest
        for path in TEKTON
        for manifest in yaml.safe_load_all(path.read_text())
        if manifest["kind"] == "Pipeline"
    ]


@pytest.mark.parametrize("pipeline", pipelines(), ids=lambda pipeline: pipeline["metadata"]["name"])
def test_a_pipeline_of_openshift_is_sound(pipeline):
    """Guards what an API server would refuse: unknown tasks, parameters, workspaces; and targets that are not there."""
    spec = pipeline["spec"]
    tasks = [*spec["tasks"], *spec.get("finally", [])]
    names = [task["name"] for task in tasks]
    made = [task for task in tasks if task["taskRef"].get("name") == "ml-assets-make"]
    assert len(names) == len(set(names))
    assert {before for task in tasks for before in task.get("runAfter", [])} <= set(names)
    assert set(re.findall(r"\$\(params\.([a-z]+)\)", str(tasks))) == {param["name"] for param in spec["params"]}
    used = {workspace["workspace"] for task in tasks for workspace in task["workspaces"]}
    assert used == {workspace["name"] for workspace in spec["workspaces"]}
    assert made
    for task in made:
        assert set(targets(param(task, "targets"))) <= TARGETS


def param(task, name):
    (value,) = (given["value"] for given in task["params"] if given["name"] == name)
    return value


def test_both_releases_take_the_same_steps():
    """Guards against two pipelines that drift apart: what one tests, scans and signs, the other does too."""
    (release,) = (pipeline for pipeline in pipelines() if pipeline["metadata"]["name"] == "ml-assets-release")
    tasks = [*release["spec"]["tasks"][1:], *release["spec"]["finally"]]
    tekton = [target for task in tasks for target in targets(param(task, "targets"))]
    (workflow,) = (path for path in WORKFLOWS if path.stem == "release")
    github = made_by(workflow)
    assert [target for target in tekton if target not in ("test-kafka", "test-faults")] == github
