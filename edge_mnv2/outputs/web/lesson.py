"""The page of a lesson: what its buttons want, and its pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from aiohttp import web

from edge_mnv2.outputs.web.workbench import Refused, document_of, in_thread, picture_at

if TYPE_CHECKING:
    from edge_mnv2.outputs.live import Lesson

_REFUSED = {"begin": "no class waits for its pictures now", "more": "there is no such class, or its turn is not now"}


class LessonPages:
    """The routes over `lesson`, which says None where nothing is taught."""

    def __init__(self, lesson: Callable[[], Optional[Lesson]]) -> None:
        self._lesson_of = lesson

    def add_to(self, application: web.Application) -> None:
        get, post = application.router.add_get, application.router.add_post
        post("/api/lesson", self._press)
        post("/api/lesson/delete", self._delete)
        get("/api/lesson/pictures", self._pictures)
        get("/api/lesson/picture.jpg", self._picture)

    @property
    def _lesson(self) -> Lesson:
        lesson = self._lesson_of()
        if lesson is None:
            raise Refused(404, "nothing is taught here: `edge-mnv2 teach --camera --web` does")
        return lesson

    async def _press(self, request: web.Request) -> web.StreamResponse:
        """`{}` begins with the class that waits; `{"do": "more", "class": NAME}`, "again", "use" and "finish" after."""
        document = await document_of(request)
        lesson, action, label = self._lesson, document.get("do", "begin"), document.get("class")
        if not isinstance(action, str) or not (label is None or isinstance(label, str)):
            raise Refused(400, '"do" is begin, more, again, use or finish; "class" a name')
        if not lesson.press(action, label):
            raise Refused(409, _REFUSED.get(action, "that cannot be done now"))
        return web.json_response(lesson.document())

    async def _pictures(self, _request: web.Request) -> web.StreamResponse:
        classes = await in_thread(self._lesson.pictures)
        return web.json_response({"classes": [{"label": label, "pictures": files} for label, files in classes.items()]})

    async def _picture(self, request: web.Request) -> web.StreamResponse:
        return await picture_at(request, await in_thread(self._lesson.picture, *_named(request.query)))

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        document = await document_of(request)
        if not await in_thread(self._lesson.delete, *_named(document)):
            raise Refused(404, "no such picture")
        return web.json_response(self._lesson.document())


def _named(words: Any) -> tuple[str, str]:
    """(class, file) of a picture."""
    label, file = words.get("class"), words.get("file")
    if not isinstance(label, str) or not isinstance(file, str):
        raise Refused(400, "class and file name a picture")
    return label, file
