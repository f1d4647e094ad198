"""Stand-ins for crontab, systemctl and launchctl, and how each system runs what it was given.

They are programs outside of Votebook: they keep what they are given in a folder, show it again, and
have no opinion about it.
"""

import os
import plistlib
import re
import subprocess

CRONTAB = """\
#!/bin/sh
F={store}/tab
case "$1" in
-l) if [ -f "$F" ]; then cat "$F"; else echo "no crontab for somebody" >&2; exit 1; fi ;;
-) cat >"$F.new" && mv "$F.new" "$F" ;;
*) exit 2 ;;
esac
"""
SYSTEMCTL = """\
#!/bin/sh
echo "$*" >>{store}/asked
[ "$1" = --user ] || exit 2
case "$2" in
show-environment) echo "HOME=$HOME"; echo "PATH=/usr/bin:/bin" ;;
enable) echo active >"{store}/$4" ;;
disable) rm -f "{store}/$4" ;;
is-active) if [ -f "{store}/$3" ]; then echo active; else echo inactive; exit 3; fi ;;
daemon-reload) ;;
*) exit 2 ;;
esac
"""
LAUNCHCTL = """\
#!/bin/sh
echo "$*" >>{store}/asked
case "$1" in
print) case "$2" in gui/*/*) [ -f "{store}/$(basename "$2")" ] ;; esac ;;
bootstrap) echo loaded >"{store}/$(basename "$3" .plist)" ;;
bootout) rm -f "{store}/$(basename "$2")" ;;
*) exit 2 ;;
esac
"""
PROGRAMS = {"crontab": CRONTAB, "systemctl": SYSTEMCTL, "launchctl": LAUNCHCTL}


def stand_in(name, folder, store):
    """Put a stand-in into a folder of programs."""
    store.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(PROGRAMS[name].replace("{store}", str(store)), encoding="utf-8")
    path.chmod(0o755)


def shell(line, environment):
    """Run a line as all systems do: by /bin/sh, without this process's environment."""
    return subprocess.run(
        ["/bin/sh", "-c", line],
        env=environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=120,
    )


def of_cron(line):
    """The command of a crontab's line, behind five fields, as Vixie's cron takes it.

    Up to the first bare %; and a backslash goes when a % or another backslash follows it.
    """
    taken, escaped = [], False
    for char in line.split(None, 5)[5]:
        if escaped:
            if char in "%\\":
                taken.pop()
            escaped = False
        elif char == "%":
            break
        else:
            escaped = char == "\\"
        taken.append(char)
    return "".join(taken)


def of_systemd(unit):
    """The line of shell in a unit: quotes and backslashes undone, then %% and $$."""
    word = re.search(r'^ExecStart=/bin/sh -c "(.*)"$', unit, re.MULTILINE)[1]
    assert not re.search(r'(?<!\\)(\\\\)*"', word), "a bare quote ends the word"
    plain = re.sub(r"\\(.)", r"\1", word)
    assert not re.search(r"(?<!%)(%%)*%(?!%)", plain), "a lone % is a specifier"
    return plain.replace("%%", "%").replace("$$", "$")


def of_launchd(plist):
    """The line of shell of an agent."""
    program, option, line = plistlib.loads(plist)["ProgramArguments"]
    assert (program, option) == ("/bin/sh", "-c")
    return line


def bare(home):
    """The environment of a command that cron starts."""
    return {"HOME": str(home), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "somebody"}


def path_with(folder):
    """A PATH whose first programs are the stand-ins."""
    return f"{folder}{os.pathsep}{os.environ['PATH']}"
