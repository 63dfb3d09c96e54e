package dev.edgebert.app

import dev.edgebert.Edgebert
import dev.edgebert.EdgebertException

/** What was typed in. */
internal data class Question(
    val text: String = "",
    val second: String = "",
    val mayBeNone: Boolean = false,
    val writeOn: Boolean = false,
) {
    /** The second text's lines, where they are choices. */
    val choices: List<String> get() = second.lines().map { it.trim() }.filter { it.isNotEmpty() }
}

/** Whether a task takes a second text. */
internal enum class Second { NONE, OPTIONAL, BESIDE, NEEDED }

/**
 * What a task wants to be asked, and how.
 *
 * @property id as the manifest names it.
 * @property second whether a second text is asked for: `OPTIONAL` shows a button for it, `BESIDE` its field, which may
 *     stay empty.
 */
internal enum class Task(
    val id: String,
    val label: Int,
    val hint: Int,
    val second: Second = Second.NONE,
    val secondLabel: Int = R.string.field_second,
    val secondHint: Int = R.string.hint_second,
) {
    BASE("base", R.string.field_text, R.string.hint_text, Second.OPTIONAL),
    EMBED(
        "sentence-embedding", R.string.field_text, R.string.hint_text, Second.BESIDE, R.string.field_compare,
    ),
    FILL("masked-lm", R.string.field_masked, R.string.hint_masked),
    CLASSIFY("sequence-classification", R.string.field_text, R.string.hint_text, Second.OPTIONAL),
    CHOOSE(
        "multiple-choice", R.string.field_text, R.string.hint_text, Second.NEEDED, R.string.field_choices,
        R.string.hint_choices,
    ),
    ENTITIES("token-classification", R.string.field_text, R.string.hint_text),
    ANSWER(
        "question-answering", R.string.field_question, R.string.hint_question, Second.NEEDED, R.string.field_context,
        R.string.hint_context,
    ),
    WRITE("causal-lm", R.string.field_prompt, R.string.hint_text),
    REPLACED("replaced-token-detection", R.string.field_text, R.string.hint_text),
    ;

    /** Whether enough is typed in for an answer. */
    fun isReady(question: Question): Boolean =
        question.text.isNotBlank() && (second != Second.NEEDED || question.second.isNotBlank())

    /** An [dev.edgebert.Answer], or what was [dev.edgebert.Generated]; runs the model. */
    fun ask(model: Edgebert, question: Question): Any {
        val text = question.text
        val second = question.second.takeIf { it.isNotBlank() && this.second != Second.NONE }
        return when (this) {
            BASE -> model.states(text, second)
            EMBED -> if (second == null) model.embed(text) else model.similarity(text, second)
            FILL -> model.fill(text)
            CLASSIFY -> model.classify(text, second)
            CHOOSE -> model.choose(text, question.choices)
            ENTITIES -> model.entities(text)
            ANSWER -> model.answer(text, second.orEmpty(), question.mayBeNone)
            WRITE -> if (question.writeOn) model.generate(text, NEW_PIECES) else model.fill(text)
            REPLACED -> model.replaced(text)
        }
    }

    companion object {
        /** As many pieces are written on at a time. */
        const val NEW_PIECES = 20

        fun of(id: String): Task = entries.firstOrNull { it.id == id }
            ?: throw EdgebertException("The bundle is for $id, which this app does not know: install a newer one.")
    }
}
