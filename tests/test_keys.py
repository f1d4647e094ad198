"""Where keys come from, in processes of their own, with the keyring's own backends."""

import os
import subprocess
import sys

import pytest

from lib import keys
from lib.errors import ServiceError
from lib.services import Facts

KEY = "sk-proj-Canary_0123456789abcdef"
MEMORY = """
import keyring, keyring.backend

class Memory(keyring.backend.KeyringBackend):
    priority = 1
    held = {}
    def get_password(self, service, user):
        return self.held.get((service, user))
    def set_password(self, service, user, password):
        self.held[service, user] = password

keyring.set_keyring(Memory())
keyring.set_password("votebook", "groq", " KEY\\n")
""".replace("KEY", KEY)
ASK = """
from lib import (keys, services)
try:
    found = keys.key(services.find(%r))
    print("found", found[:3], len(found))
except services.errors.ServiceError as error:
    print(error)
"""


def ask(name, before="", **env):
    """What a process says that asks for the key of a service."""
    kept = {n: v for n, v in os.environ.items() if "API_KEY" not in n and "DBUS" not in n}
    done = subprocess.run(
        [sys.executable, "-c", before + ASK % name],
        env=kept | env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Canary" not in done.stdout + done.stderr
    return done.stdout.strip()


def test_the_environment_comes_before_the_keyring():
    """The variable that the service's row names is taken; the keyring holds a longer key here."""
    assert ask("groq", MEMORY, GROQ_API_KEY="gsk_12") == "found gsk 6"


def test_a_scheduled_run_finds_its_key_in_the_keyring():
    """Without the variable, the entry of service votebook and user groq counts; blanks go."""
    assert ask("groq", MEMORY) == f"found sk- {len(KEY)}"


def test_a_keyring_without_the_entry_is_said_with_the_command_that_makes_it():
    """The null backend holds nothing, and another service's entry is not taken."""
    null = ask("openai", PYTHON_KEYRING_BACKEND="keyring.backends.null.Keyring")
    assert null == ask("openai", MEMORY)
    assert null == (
        "no key for openai: OPENAI_API_KEY is not set, and the keyring has none. Export it in the "
        "shell that starts this, not in a file, or run `keyring set votebook openai` once."
    )


def test_a_machine_without_a_keyring_gets_a_plain_sentence():
    """A headless machine has the failing backend, which says so; one that does not load, too."""
    said = ask("openai", PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring")
    assert said == (
        "no key for openai: OPENAI_API_KEY is not set, and no keyring is on this machine. "
        "Export it in the shell that starts this, not in a file."
    )
    said = ask("openai", PYTHON_KEYRING_BACKEND="no.such.Backend")
    assert "and the keyring cannot be read here (ModuleNotFoundError). Export it" in said


def test_another_service_is_never_given_the_keyrings_key():
    """An address that no row names has an entry of its own, under the address."""
    url = "https://gateway.example.org/v1"
    assert ask(url, MEMORY.replace('"groq"', '"openai"')).startswith(f"no key for {url}:")
    assert ask(url, MEMORY.replace('"groq"', repr(url))) == f"found sk- {len(KEY)}"


def test_a_service_that_wants_no_key_goes_without(monkeypatch):
    """A gateway of one's own may have none; it then gets none, whatever others have."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    assert keys.key(Facts(name="own", key_variable="OWN_API_KEY", key_needed=False)) == ""


def test_a_key_that_was_pasted_badly_is_told_without_it(monkeypatch):
    """Two lines, quotes or blanks in it are no key, and are not repeated."""
    monkeypatch.setenv("OWN_API_KEY", f"“{KEY}”")
    with pytest.raises(ServiceError, match="OWN_API_KEY holds a blank or a character") as fault:
        keys.key(Facts(name="own", key_variable="OWN_API_KEY"))
    assert "Canary" not in str(fault.value)
