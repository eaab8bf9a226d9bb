"""The OpenAPI document is about this server: its routes, its model, its statuses."""

import pytest

from saccade.serve.app import routes

SERVED_ELSEWHERE = {"/"}  # the page for people


def test_it_has_exactly_the_servers_routes(served):
    paths = served.client.get("/openapi.json").json()["paths"]
    documented = {
        (path, method) for path, found in paths.items() for method in found.keys() & {"get", "post"}
    }
    real = {
        (route.path, method.lower()) for route in routes() for method in route.methods if method != "HEAD"
    }
    assert len(real) > 12
    assert {entry for entry in documented if entry[0] not in SERVED_ELSEWHERE} == {
        entry for entry in real if entry[0] not in SERVED_ELSEWHERE
    }


def test_it_names_the_model_and_its_classes(served):
    document = served.client.get("/openapi.json").json()
    (model,) = document["paths"]["/v2/models/{model}"]["parameters"]
    assert model["schema"]["enum"] == ["colours"]
    label = document["components"]["schemas"]["Predictions"]["anyOf"][0]["items"]["properties"]["label"]
    assert label["enum"] == list(served.server.model.classes)


def test_its_examples_are_answered(served):
    infer = served.client.get("/openapi.json").json()["paths"]["/v2/models/{model}/infer"]["post"]
    examples = infer["requestBody"]["content"]["application/json"]["examples"]
    for name, label in (("pixels", ("blue", "red")), ("file", ("red",))):
        answer = served.client.post("/v2/models/colours/infer", json=examples[name]["value"])
        value, index, found = answer.json()["outputs"][0]["data"][0].split(":")
        assert found in label
        assert served.server.model.classes[int(index)] == found
        assert 0 <= float(value) <= 1


@pytest.mark.parametrize("token", [b"", b"x" * 20])
def test_with_a_token_it_says_where_it_is_needed(serving, model_path, token):
    with serving(model_path, token=token) as running:
        headers = {"authorization": f"Bearer {token.decode()}"} if token else {}
        document = running.client.get("/openapi.json", headers=headers).json()
        for path, status in (("/v2", 401), ("/v2/health/live", 200), ("/v2/models/colours", 401)):
            operation = document["paths"][path.replace("colours", "{model}")]["get"]
            assert ("401" in operation["responses"]) == (bool(token) and status == 401)
            assert running.client.get(path).status_code == (status if token else 200)
