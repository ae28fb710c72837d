"""Holds YAML texts against Kubernetes' own schemas, strictly: an unknown field is an error.

Reads a JSON list of texts, each one document; writes the list of what is wrong with each, or null. The package's own
function reads 1.6 MB of definitions for each document; here that is done once.
"""

import json
import pathlib
import sys

import jsonschema
import kubernetes_validate
import referencing
import yaml

folder = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / "v1.36.0-local-strict"


def load(name):
    return referencing.Resource.from_contents(json.loads((folder / name).read_text()))


definitions = load("_definitions.json")
known = {}


def validator(document):
    group, _, version = document["apiVersion"].rpartition("/")
    name = "-".join(filter(None, [document["kind"].lower(), group.split(".")[0], version])) + ".json"
    if name not in known:
        schema = load(name)
        registry = definitions @ (schema @ referencing.Registry())
        known[name] = jsonschema.Draft202012Validator(schema.contents, registry=registry)
    return known[name]


def wrong(text):
    try:
        document = yaml.safe_load(text)
        errors = list(validator(document).iter_errors(document))
    except Exception as error:
        return repr(error)
    return "; ".join(f"{error.json_path}: {error.message}" for error in errors) or None


json.dump([wrong(text) for text in json.load(sys.stdin)], sys.stdout)
