package dev.edgebert

import com.google.gson.FormattingStyle
import com.google.gson.Strictness
import com.google.gson.stream.JsonWriter
import java.io.StringWriter

/** Answers as the JSON that `edgebert predict --json` prints: its names in its order, places in code points. */
internal object Json {
    fun of(answer: Classification): String = written {
        if (!answer.several) {
            name("label").value(answer.label)
            name("score").value(answer.score)
        }
        name("labels").array(answer.labels) { scored(it) }
        if (answer.several) name("scores").numbers(answer.scores)
        if (answer.logits.isNotEmpty()) name("logits").numbers(answer.logits)
        told(answer)
    }

    fun of(answer: Choice): String = written {
        name("choice").value(answer.choice)
        name("label").value(answer.label)
        name("score").value(answer.score)
        name("scores").numbers(answer.scores)
        name("logits").numbers(answer.logits)
        told(answer)
    }

    fun of(answer: Entities): String = written {
        fun own(ofPair: Boolean) = if (ofPair) answer.pair.orEmpty() else answer.text
        fun labelled(kind: String, found: List<Labelled>) = array(found) {
            name(kind).value(it.text)
            place(own(it.ofPair), it.start, it.end)
            name("label").value(it.label)
            name("score").value(it.score)
        }
        name("tokens")
        labelled("token", answer.tokens)
        name("words")
        labelled("word", answer.words)
        name("entities").array(answer.entities) {
            name("entity_group").value(it.kind)
            name("score").value(it.score)
            name("word").value(it.word)
            name("text").value(it.text)
            place(own(it.ofPair), it.start, it.end)
        }
        told(answer)
    }

    fun of(answer: Span): String = written {
        name("answer").value(answer.answer)
        place(answer.context, answer.start, answer.end)
        name("score").value(answer.score)
        name("no_answer").value(answer.noAnswer)
        told(answer)
    }

    fun of(answer: Pieces): String = written {
        name("label").value(answer.label)
        name("score").value(answer.score)
        name("words").beginArray()
        for (place in answer.words) array(place) { scored(it) }
        endArray()
        told(answer)
    }

    fun of(answer: Replaced): String = written {
        name("tokens").array(answer.tokens) {
            name("token").value(it.token)
            place(if (it.ofPair) answer.pair.orEmpty() else answer.text, it.start, it.end)
            name("score").value(it.score)
        }
        told(answer)
    }

    fun of(answer: States): String = written {
        name("shape").numbers(answer.shape)
        name("mean").numbers(answer.mean)
        told(answer)
    }

    fun of(answer: Embedding): String = written {
        name("embedding").numbers(answer.vector)
        told(answer)
    }

    fun of(answer: Similarity): String = written {
        name("similarity").value(answer.similarity)
        told(answer)
    }

    fun of(answer: Generated): String = written {
        name("text").value(answer.text)
        name("ids").numbers(answer.ids)
        name("prompt_ids").numbers(answer.promptIds)
        name("stopped").value(answer.stopped)
    }

    private fun written(body: JsonWriter.() -> Unit): String {
        val text = StringWriter()
        JsonWriter(text).apply {
            setFormattingStyle(FormattingStyle.COMPACT.withSpaceAfterSeparators(true)) // as Python's json has it
            strictness = Strictness.LENIENT // a number that is none is told as such
            beginObject()
            body()
            endObject()
        }
        return text.toString()
    }

    private fun JsonWriter.told(answer: Answer) {
        name("truncated").value(answer.truncated)
        name("token_count").value(answer.tokenCount)
    }

    private fun JsonWriter.scored(entry: Scored) {
        name("label").value(entry.label)
        name("score").value(entry.score)
    }

    private fun JsonWriter.place(text: String, start: Int, end: Int) {
        name("start").value(text.codePointCount(0, start))
        name("end").value(text.codePointCount(0, end))
    }

    private fun <T> JsonWriter.array(entries: List<T>, each: JsonWriter.(T) -> Unit) {
        beginArray()
        for (entry in entries) {
            beginObject()
            each(entry)
            endObject()
        }
        endArray()
    }

    private fun JsonWriter.numbers(entries: List<Number>) {
        beginArray()
        // A float's own digits are fewer than those of the double that is equal to it, which Python prints.
        for (entry in entries) if (entry is Int) value(entry) else value(entry.toDouble())
        endArray()
    }
}
