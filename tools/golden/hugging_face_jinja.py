"""Templates in the environment that Hugging Face renders chat templates in, at a fixed time."""
import datetime
import json
import os
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["TZ"] = "UTC"
time.tzset()

import jinja2
import transformers
from transformers.utils import chat_template_utils

NOW = 1721997296  # 2024-07-26 12:34:56 UTC


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW)


chat_template_utils.datetime = FixedTime
VERSIONS = {"jinja2": jinja2.__version__, "transformers": transformers.__version__}


def render(source, variables):
    """{"output"}, {"raised"} by raise_exception, or {"error"} by Python or jinja2."""
    try:
        template = chat_template_utils._cached_compile_jinja_template(source)
        output = template.render(**json.loads(json.dumps(variables)))
        output.encode()
        return {"output": output}
    except Exception as error:
        if type(error) is jinja2.exceptions.TemplateError:
            return {"raised": str(error)}
        return {"error": f"{type(error).__name__}: {error}"}
