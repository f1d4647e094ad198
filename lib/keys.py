"""Keys: from the environment or the system's keyring, and from nowhere else.

It refuses to look into files, parameters and studies, and to repeat what it has found: no message
holds any part of a key.
"""

import os
import re

from lib.errors import ServiceError
from lib.services import Facts

KEYRING = "votebook"  # the service under which the system's keyring holds our keys
_EMPTY = "the keyring has none"


def key(facts: Facts) -> str:
    """The key of a service: its environment variable, else the keyring's entry for its name.

    Raises ServiceError, in one plain sentence, where there is none or it cannot be one.
    """
    user = facts.name
    found, place = os.environ.get(facts.key_variable, "").strip(), facts.key_variable
    why = ""
    if not found:
        found, why = from_keyring(user)
        place = "the keyring's entry"
    if not found and facts.key_needed:
        what = f"no key for {user}: {facts.key_variable} is not set, and {why}."
        fix = "Export it in the shell that starts this, not in a file"
        other = f", or run `keyring set {KEYRING} {user}` once" if why == _EMPTY else ""
        raise ServiceError(f"{what} {fix}{other}.", code="no_key")
    if found and not re.fullmatch(r"[!-~]+", found):
        what = f"{place} holds a blank or a character that no key has: copy it anew."
        raise ServiceError(what, code="bad_key")
    return found


def from_keyring(user: str) -> tuple[str, str]:
    """What the keyring holds for `user`, and why there is nothing."""
    import keyring
    import keyring.errors

    try:
        found = keyring.get_password(KEYRING, user)
    except keyring.errors.NoKeyringError:
        return "", "no keyring is on this machine"
    except (keyring.errors.KeyringError, OSError, ImportError, AttributeError) as error:
        return "", f"the keyring cannot be read here ({type(error).__name__})"
    return (found or "").strip(), _EMPTY
