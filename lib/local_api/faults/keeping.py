"""Switches across restarts, and from a file.

What is switched on and how often it struck is kept in the state folder, so that a service that is
killed goes on with its faults too; a file that is given at the start takes their place.
"""

import json
import logging
from pathlib import Path

from lib import errors
from lib.local_api import context, store
from lib.local_api.faults import switches, table

SETTING = "faults"
log = logging.getLogger("votebook.local_api")


def from_file(path: Path) -> dict[str, switches.Rule]:
    """The rules of a YAML or JSON file; raises ServiceError that names the file."""
    import yaml

    try:
        asked = yaml.safe_load(path.read_bytes())
        return switches.parsed({} if asked is None else asked)
    except OSError as error:
        what = f"The file of faults {path} cannot be read: {error.strerror}."
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        what = f"The file of faults {path} is not valid YAML or JSON: {error}"
    except errors.ServiceError as error:
        what = f"The file of faults {path} is wrong: {error}"
    raise errors.ServiceError(what, code="invalid_faults")


def switch_on(service: context.Service, rules: dict[str, switches.Rule]) -> None:
    """Put these rules in the place of all others, counted anew."""
    service.faults.on = {name: switches.Switch(rule) for name, rule in rules.items()}
    keep(service)


def keep(service: context.Service) -> None:
    """Keep what is on, and what has struck."""
    kept = {
        name: {
            "options": switches.described(switch.rule),
            "n_chances": switch.n_chances,
            "n_struck": switch.n_struck,
            "decided": switch.decided,
        }
        for name, switch in service.faults.on.items()
    }
    store.keep_setting(service.db, SETTING, json.dumps(kept))


def restore(service: context.Service, rules: dict[str, switches.Rule] | None) -> None:
    """Begin with these rules, or go on with those that the last process kept.

    What batches ask for in their metadata comes back in either case.
    """
    if rules is not None:
        switch_on(service, rules)
    for name, kept in json.loads(store.setting(service.db, SETTING) or "{}").items():
        if name in table.FAULTS and rules is None:
            rule = switches.rule(name, kept.pop("options"), 0)
            service.faults.on[name] = switches.Switch(rule, **kept)
    for row in store.batches_with_metadata(service.db, switches.METADATA):
        attach(service, row["id"], json.loads(row["metadata"]))


def check(metadata: dict | None) -> None:
    """Refuse metadata that name a fault which does not exist, or is none of batches."""
    if metadata and switches.METADATA in metadata:
        switches.attached(metadata[switches.METADATA])


def attach(service: context.Service, batch_id: str, metadata: dict | None) -> None:
    """Switch on what the metadata of a batch ask for, for this batch alone."""
    try:
        asked = switches.attached((metadata or {}).get(switches.METADATA, ""))
    except errors.ServiceError as error:
        # A state folder may hold batches of another version, which knew other faults.
        log.warning("%s: %s", batch_id, error)
        return
    if asked:
        service.faults.attached[batch_id] = asked
