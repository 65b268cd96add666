"""What the pages give to copy, and what hosts read, each by the checker of its own format: the
Dockerfile by hadolint, compose and Kubernetes by their schemas, units by systemd, and every command
by this program.
"""

from __future__ import annotations

import argparse
import configparser
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.core.management import load_command_class

from jobs import conf
from tests.project import ROOT
from tests.services import missing

DOCS = ROOT / "docs"
#: Django's own, and those of others, that the pages call.
OTHERS = {"migrate"}


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        missing(f"{module} is not installed")


def manifests(page: str, language: str) -> dict[str, str]:
    """The blocks of a page by the file that their first line names."""
    text = (DOCS / page).read_text()
    pattern = rf"^```{language}\n# (\S+?)(?:,[^\n]*)?\n(.*?)^```"
    found = dict(re.findall(pattern, text, re.MULTILINE | re.DOTALL))
    assert found
    return found


def documents(page: str, name: str) -> list[Any]:
    import yaml

    return list(yaml.safe_load_all(manifests(page, "yaml")[name]))


def check_command(words: list[str]) -> argparse.Namespace | None:
    """That ``python manage.py`` takes these. Returns the options of a command of ours."""
    assert Path(words[0]).name == "python"
    assert words[1] == "manage.py"
    if words[2] in OTHERS:
        return None
    parser = load_command_class("jobs", words[2]).create_parser("manage.py", words[2])
    return parser.parse_args(words[3:])


def check_grace(seconds: int) -> None:
    assert seconds > conf.Conf().grace_seconds


def run(*command: str, given: str | None = None) -> str:
    """What a checker that finds nothing wrong writes to standard error."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


# ----------------------------------------------------------------------------------- Docker


def test_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        missing("hadolint is not installed")
    run(str(hadolint), "--no-color", "-", given=manifests("docker.md", "dockerfile")["Dockerfile"])


def check_schema(name: str, file: Path) -> None:
    needs("check_jsonschema")
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}", str(file))


def test_compose(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(manifests("docker.md", "yaml")[file.name])
    check_schema("compose-spec", file)

    (compose,) = documents("docker.md", file.name)
    services = compose["services"]
    options = check_command(services["worker"]["command"])
    assert options is not None
    assert options.health_file in services["worker"]["healthcheck"]["test"][1]
    check_grace(int(services["worker"]["stop_grace_period"].removesuffix("s")))
    for name in ("beat", "migrate"):
        check_command(services[name]["command"])
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)


# ------------------------------------------------------------------------------- Kubernetes


def test_kubernetes() -> None:
    needs("kubernetes_validate")
    import kubernetes_validate

    made = documents("kubernetes.md", "shop.yaml")
    assert len(made) == 6
    for document in made:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)

    by_name = {(one["kind"], one["metadata"]["name"]): one for one in made}
    pods = {
        name: one["spec"]["template"]
        for (kind, name), one in by_name.items()
        if kind in ("Deployment", "Job")
    }
    for template in pods.values():
        for container in template["spec"]["containers"]:
            if command := container.get("command"):
                check_command([*command, *container.get("args", [])])
    worker = pods["shop-worker"]
    (container,) = worker["spec"]["containers"]
    options = check_command([*container["command"], *container["args"]])
    assert options is not None
    for probe in ("startupProbe", "livenessProbe"):
        assert options.health_file in " ".join(container[probe]["exec"]["command"])
    check_grace(worker["spec"]["terminationGracePeriodSeconds"])
    budget = by_name["PodDisruptionBudget", "shop-worker"]
    assert budget["spec"]["selector"]["matchLabels"] == worker["metadata"]["labels"]


# --------------------------------------------------------------------------------- Services

#: Each section of a unit with the directives that the page uses, as systemd.unit(5),
#: systemd.exec(5), systemd.service(5) and systemd.kill(5) have them.
DIRECTIVES = {
    "Unit": {"Description", "After", "Wants"},
    "Service": {
        *("User", "WorkingDirectory", "EnvironmentFile", "ExecStart", "ExecReload"),
        *("KillMode", "TimeoutStopSec", "Restart"),
    },
    "Install": {"WantedBy"},
}


def test_units(tmp_path: Path) -> None:
    units = manifests("services.md", "ini")
    assert len(units) == 3
    for name, text in units.items():
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment, method-assign]  # it keeps capitals
        unit.read_string(text)
        for section in unit.sections():
            assert set(unit[section]) <= DIRECTIVES[section], name
        service = unit["Service"]
        if "manage.py" in service["ExecStart"]:
            check_command(shlex.split(service["ExecStart"]))
        if "runworker" in service["ExecStart"]:
            check_grace(service.getint("TimeoutStopSec"))
        # Only what this machine has is not faulted by systemd itself.
        here = re.sub(r"/srv/shop/venv/bin/\S+", sys.executable, text).replace("=shop\n", "=root\n")
        (tmp_path / Path(name).name).write_text(here)
    if analyze := shutil.which("systemd-analyze"):
        said = run(analyze, "verify", "--man=no", *sorted(map(str, tmp_path.glob("*.service"))))
        # It only mentions a value that it would ignore, and may speak of the machine's own units.
        assert [line for line in said.splitlines() if "/shop-" in line] == []


def test_procfile() -> None:
    text = manifests("services.md", "procfile")["Procfile"]
    processes = dict(re.findall(r"^([\w-]+): (.+)$", text, re.MULTILINE))
    assert len(processes) == len(text.splitlines())
    assert set(processes) == {"release", "web", "worker", "beat"}
    for name, command in processes.items():
        if name != "web":
            check_command(shlex.split(command))


def test_the_host_of_the_documentation() -> None:
    check_schema("readthedocs", ROOT / ".readthedocs.yaml")
