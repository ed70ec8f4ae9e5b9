"""The archive for language models, over the Model Context Protocol (https://modelcontextprotocol.io).

`tools.py` and `resources.py` say what there is, once for both transports; `protocol.py` puts it behind the official
SDK; `stdio.py` and `http.py` say who calls. Each call works on the archive as its caller may see it, in a thread, and
what it answers is bounded.
"""
