"""Firefox for tests with Selenium, without geckodriver.

Debian has Firefox, but not geckodriver, the program that passes Selenium's commands on to Firefox.
Mozilla's package marionette_driver can talk to Firefox. This module starts Firefox, and passes the
commands on to it, under the names that geckodriver uses.
"""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from marionette_driver.transport import TcpTransport
from selenium.webdriver import FirefoxOptions
from selenium.webdriver.remote.command import Command
from selenium.webdriver.remote.webdriver import WebDriver

# Firefox's names of Selenium's commands, as far as the tests use them.
NAMES = {
    Command.NEW_SESSION: "NewSession",
    Command.GET: "Navigate",
    Command.FIND_ELEMENT: "FindElement",
    Command.FIND_ELEMENTS: "FindElements",
    Command.FIND_CHILD_ELEMENT: "FindElement",
    Command.FIND_CHILD_ELEMENTS: "FindElements",
    Command.CLICK_ELEMENT: "ElementClick",
    Command.SEND_KEYS_TO_ELEMENT: "ElementSendKeys",
    Command.GET_ELEMENT_TEXT: "GetElementText",
    Command.W3C_EXECUTE_SCRIPT: "ExecuteScript",
    Command.W3C_GET_ACTIVE_ELEMENT: "GetActiveElement",
    Command.W3C_ACTIONS: "PerformActions",
    Command.SET_WINDOW_RECT: "SetWindowRect",
    Command.GET_WINDOW_RECT: "GetWindowRect",
    Command.PRINT_PAGE: "Print",
}
PATIENCE_S = 60
OF_AN_ELEMENT = (Command.FIND_CHILD_ELEMENT, Command.FIND_CHILD_ELEMENTS)


class Connection:
    """Pass Selenium's commands on to a Firefox that this object starts."""

    def __init__(self, program: str, preferences: dict[str, Any], profile: Path):
        settings = {"marionette.port": 0, **preferences}  # 0: any free port
        lines = [f"user_pref({json.dumps(key)}, {json.dumps(settings[key])});" for key in settings]
        (profile / "user.js").write_text("\n".join(lines))
        command = [program, "-headless", "-marionette", "-no-remote", "-profile", str(profile)]
        with (profile / "firefox.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self.client = TcpTransport("127.0.0.1", self._port(profile), PATIENCE_S)
            self.client.connect()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _port(self, profile: Path) -> int:
        """Wait until Firefox has written the number of its port, and return it."""
        file, deadline = profile / "MarionetteActivePort", time.monotonic() + PATIENCE_S
        while not (file.is_file() and (text := file.read_text().strip())):
            assert self.process.poll() is None, "Firefox has ended"
            assert time.monotonic() < deadline, "Firefox did not start in time"
            time.sleep(0.1)
        return int(text)

    def execute(self, command: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of Firefox in the form that Selenium expects."""
        if command == Command.NEW_SESSION:
            params = {}
        if command == Command.QUIT:
            self.client.close()
            self.process.terminate()
            self.process.wait(PATIENCE_S)
            return {"value": None}
        params = {name: value for name, value in params.items() if name != "sessionId"}
        if command in OF_AN_ELEMENT:
            params["element"] = params.pop("id")
        answer = self.client.request(f"WebDriver:{NAMES[command]}", params)
        if answer.error:
            return {"status": 500, "value": json.dumps({"value": answer.error})}
        result = answer.result
        has_value = isinstance(result, dict) and "value" in result
        return {"value": result["value"] if has_value else result}

    def close(self) -> None:
        """Do nothing: QUIT ends Firefox."""


def start_firefox(program: str, preferences: dict[str, Any], profile: Path) -> WebDriver:
    """Start a headless Firefox, and return it as a driver of Selenium.

    Args:
      program: path of Firefox.
      preferences: entries of about:config.
      profile: an empty folder.
    """
    connection = Connection(program, preferences, profile)
    return WebDriver(command_executor=connection, options=FirefoxOptions())
