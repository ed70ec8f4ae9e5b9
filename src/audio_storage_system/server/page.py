"""The page for people at `/docs`, to which `/` leads: Swagger UI, light or dark as the reader's browser prefers."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

ASSETS = "/docs/assets"  # where the framework has what the page loads: nothing comes from another server
# Swagger UI has dark colours, and by itself no wish to follow.
COLOURS = """<script>
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const follow = () => {
        document.documentElement.classList.toggle("dark-mode", dark.matches);
        document.documentElement.style.colorScheme = dark.matches ? "dark" : "light";
    };
    dark.addEventListener("change", follow);
    follow();
    </script>
    </head>"""


def add(app: FastAPI) -> None:
    """Have the application answer with the page."""

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = str(request.scope.get("root_path", ""))
        page = get_swagger_ui_html(
            openapi_url=f"{root}{request.app.openapi_url}",
            title=request.app.title,
            swagger_js_url=f"{root}{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{root}{ASSETS}/favicon.png",
            swagger_ui_parameters={"validatorUrl": None},  # which would tell another server of this one
        )
        return HTMLResponse(bytes(page.body).decode().replace("</head>", COLOURS))

    @app.get("/", include_in_schema=False)
    async def root(request: Request) -> RedirectResponse:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")
