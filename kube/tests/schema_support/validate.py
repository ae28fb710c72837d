"""Holds TOML texts against a JSON Schema (draft 7). Reads {"schema": …, "texts": […]} in JSON; writes what is wrong with each
text, or null."""

import json
import sys
import tomllib

import jsonschema

asked = json.load(sys.stdin)
jsonschema.Draft7Validator.check_schema(asked["schema"])
validator = jsonschema.Draft7Validator(asked["schema"])


def wrong(text):
    errors = validator.iter_errors(tomllib.loads(text))
    return "; ".join(f"{error.json_path}: {error.message}" for error in errors) or None


json.dump([wrong(text) for text in asked["texts"]], sys.stdout)
