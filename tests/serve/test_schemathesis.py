"""Requests made up from an OpenAPI document, against a server process: no 5xx, no status it does not name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.examples
EXAMPLES = 5  # an operation and phase
SEED = 16
# A document cannot say that a tensor's data must fit its shape, so much that fits the document is refused
LEFT_OUT = "positive_data_acceptance"


@pytest.fixture(scope="module")
def address(serve_process, model_path):
    with serve_process(model_path, "--name", "colours") as address:
        yield f"http://{address}"


def schemathesis(tmp_path, *arguments):
    command = [Path(sys.executable).with_name("schemathesis"), "run", *arguments]
    command += ["--max-examples", str(EXAMPLES), "--seed", str(SEED), "--continue-on-failure", "--no-color"]
    home = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=home,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_our_own_document(address, tmp_path):
    shown = schemathesis(tmp_path, f"{address}/openapi.json", "--checks", "all", "--exclude-checks", LEFT_OUT)
    assert "Tested: 1" in shown, shown  # 10 operations and more


@pytest.mark.real_data("data/protocols/open_inference_rest.yaml")
def test_the_document_of_the_protocol(address, tmp_path, shared_data):
    text = shared_data("data/protocols/open_inference_rest.yaml").read_text("utf-8")
    document = tmp_path / "open_inference_rest.yaml"
    document.write_text(text.replace("${MODEL_NAME}", "colours").replace("${MODEL_VERSION}", "1"), "utf-8")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    shown = schemathesis(tmp_path, str(document), "--url", address, "--checks", checks)
    assert "Tested: 6" in shown, shown
