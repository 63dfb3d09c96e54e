package dev.edgebert

/** Answers as the JSON that Python prints. */
internal object Json {
    fun of(answer: Any): String = TODO("$answer")
}
