package dev.edgebert.app

import android.text.SpannableString
import android.text.Spanned
import android.text.style.BackgroundColorSpan
import android.text.style.ForegroundColorSpan
import android.view.ViewGroup
import android.widget.TextView
import dev.edgebert.Answer
import dev.edgebert.Choice
import dev.edgebert.Classification
import dev.edgebert.Embedding
import dev.edgebert.Entities
import dev.edgebert.Generated
import dev.edgebert.Pieces
import dev.edgebert.Replaced
import dev.edgebert.Similarity
import dev.edgebert.Span
import dev.edgebert.States
import dev.edgebert.bundle.Manifest
import dev.edgebert.bundle.Reading

/** What the model answered: a headline that is read out, what it is made of, and what it took. */
internal class AnswerView(view: ViewGroup) {
    private val context = view.context
    private val headline: TextView = view.findViewById(R.id.headline)
    private val score: TextView = view.findViewById(R.id.score)
    private val body: ViewGroup = view.findViewById(R.id.answer_body)
    private val cut: TextView = view.findViewById(R.id.cut)
    private val facts: TextView = view.findViewById(R.id.facts)
    private val waiting: TextView = view.findViewById(R.id.waiting)
    private var shown: Reply? = null

    fun show(session: Session) {
        val opened = session.opened ?: return
        val reply = session.reply
        waiting.show(reply == null || session.isBusy)
        waiting.text = context.getString(
            when {
                opened.edgebert.tokenizer == null -> R.string.no_tokenizer
                session.isBusy -> R.string.busy
                opened.task.second == Second.NEEDED -> R.string.waiting_second
                else -> R.string.waiting
            },
        )
        if (reply === shown) return
        shown = reply
        clear()
        if (reply == null) return
        when (val answer = reply.answer) {
            null -> say(reply.error.orEmpty(), bad = true)
            is Answer -> {
                answer(answer, opened.edgebert.manifest, reply.question)
                cut.show(answer.truncated)
                facts(reply, context.plural(R.plurals.tokens, answer.tokenCount))
            }
            is Generated -> {
                written(answer, reply.question.text)
                facts(reply, context.plural(R.plurals.tokens, answer.ids.size))
            }
        }
    }

    private fun clear() {
        body.removeAllViews()
        for (text in listOf(headline, score, cut, facts)) text.show(false)
    }

    private fun answer(answer: Answer, manifest: Manifest, question: Question) = when (answer) {
        is Classification -> classification(answer, manifest)
        is Choice -> choice(answer, question.choices, manifest.reading)
        is Entities -> entities(answer)
        is Span -> span(answer)
        is Pieces -> pieces(answer)
        is Replaced -> replaced(answer)
        is States -> states(answer)
        is Embedding -> embedding(answer)
        is Similarity -> similarity(answer, manifest.reading)
    }

    private fun classification(answer: Classification, manifest: Manifest) {
        val reading = manifest.reading
        if (answer.scores.size == 1 && !answer.several) return oneScore(answer, reading)
        if (answer.several) {
            say(answer.labels.joinToString { it.label }.ifEmpty { context.getString(R.string.no_label) })
            if (answer.labels.isEmpty()) score(context.getString(R.string.no_label_text))
        } else {
            say(answer.label.orEmpty(), spoken = reading.score(answer.score ?: 0.0))
        }
        // Where several may apply, the next ones are shown too.
        val best = manifest.labels.zip(answer.scores).sortedByDescending { (_, score) -> score }.take(SHOWN)
        best.forEachIndexed { rank, (label, score) ->
            val applies = if (answer.several) answer.labels.any { it.label == label } else rank == 0
            body.addBar(label, reading.score(score), reading.share(score), applies)
        }
        val rest = answer.scores.size - best.size
        if (rest > 0) body.addText(context.plural(R.plurals.more_labels, rest), R.style.Soft, above = 8)
    }

    /** Of a regression, or a cross-encoder. */
    private fun oneScore(answer: Classification, reading: Reading) {
        val value = answer.scores[0]
        say(reading.score(value), answer.label?.takeUnless { it == GENERIC_LABEL })
        if (reading.activation != PLAIN) body.addBar(answer.label.orEmpty(), reading.score(value), reading.share(value))
    }

    private fun choice(answer: Choice, choices: List<String>, reading: Reading) {
        say(answer.label, spoken = reading.score(answer.score))
        choices.zip(answer.scores).forEachIndexed { i, (choice, score) ->
            body.addBar(choice, reading.score(score), reading.share(score), strong = i == answer.choice)
        }
    }

    private fun entities(answer: Entities) {
        val found = answer.entities
        val none = context.getString(R.string.no_entities)
        say(if (found.isEmpty()) none else context.plural(R.plurals.entities, found.size))
        val kinds = found.map { it.kind }.distinct().sorted()
        fun color(kind: String) = context.getColor(MARKS[kinds.indexOf(kind) % MARKS.size])
        val text = SpannableString(answer.text)
        for (entity in found) text.mark(entity.start, entity.end, color(entity.kind))
        body.addText(text, R.style.Body, above = 12)
        for (entity in found) {
            val name = SpannableString("${entity.text}  ${entity.kind} ")
            name.mark(entity.text.length + 1, name.length, color(entity.kind))
            body.addBar(name, percent(entity.score), entity.score)
        }
    }

    private fun span(answer: Span) {
        if (answer.answer.isEmpty()) {
            val sure = context.getString(R.string.answer_none_score, percent(answer.noAnswer))
            say(context.getString(R.string.no_answer), sure)
        } else {
            say(answer.answer, context.getString(R.string.answer_score, percent(answer.score)))
        }
        val text = SpannableString(answer.context)
        text.mark(answer.start, answer.end, context.getColor(R.color.mark_1))
        body.addText(text, R.style.Body, above = 12)
    }

    private fun pieces(answer: Pieces) {
        say(answer.label, spoken = percent(answer.score))
        answer.words.forEachIndexed { i, words ->
            if (answer.words.size > 1) body.addText(context.getString(R.string.place, i + 1), R.style.Label, above = 12)
            words.forEachIndexed { rank, it -> body.addBar(it.label, percent(it.score), it.score, strong = rank == 0) }
        }
    }

    private fun replaced(answer: Replaced) {
        val suspects = answer.tokens.filter { it.score > 0.5 }
        val none = context.getString(R.string.replaced_none)
        say(if (suspects.isEmpty()) none else context.plural(R.plurals.replaced, suspects.size))
        val text = SpannableString(answer.text)
        for (token in suspects) text.mark(token.start, token.end, context.getColor(R.color.mark_6))
        body.addText(text, R.style.Body, above = 12)
        body.addText(context.getString(R.string.replaced_title), R.style.Label, above = 12)
        for (token in answer.tokens) body.addBar(token.token, percent(token.score), token.score, token in suspects)
    }

    private fun states(answer: States) {
        say(context.getString(R.string.states_title, answer.shape[0], answer.shape[1]))
        val first = answer.mean.take(NUMBERS)
        body.addText(context.getString(R.string.states_mean, first.size), R.style.Label, above = 12)
        numbers(first)
    }

    private fun embedding(answer: Embedding) {
        val norm = Math.sqrt(answer.vector.sumOf { it.toDouble() * it })
        say(context.plural(R.plurals.numbers, answer.vector.size), context.getString(R.string.norm, number(norm, 3)))
        val first = answer.vector.take(NUMBERS)
        body.addText(context.getString(R.string.first_numbers, first.size), R.style.Label, above = 12)
        numbers(first.map { it.toDouble() })
    }

    private fun similarity(answer: Similarity, reading: Reading) {
        say(number(answer.similarity, 3), context.getString(R.string.similarity_by, reading.similarity ?: "cosine"))
        if (reading.similarity == null || reading.similarity == "cosine") {
            body.addBar(context.getString(R.string.similarity), number(answer.similarity, 3), answer.similarity)
        }
    }

    private fun written(answer: Generated, prompt: String) {
        say(answer.text)
        val whole = SpannableString("$prompt ${answer.text}")
        val soft = ForegroundColorSpan(context.getColor(R.color.ink_soft))
        whole.setSpan(soft, 0, prompt.length, Spanned.SPAN_EXCLUSIVE_EXCLUSIVE)
        body.addText(whole, R.style.Body, above = 12)
        val why = when (answer.stopped) {
            "sep" -> context.getString(R.string.stopped_sep)
            "length" -> context.getString(R.string.stopped_length)
            else -> context.getString(R.string.stopped_limit, answer.ids.size)
        }
        body.addText(why, R.style.Soft, above = 8)
    }

    private fun numbers(values: List<Double>) {
        body.addText(values.joinToString("   ") { number(it, 4) }, R.style.Number, above = 4).textAlignment =
            TextView.TEXT_ALIGNMENT_VIEW_START
    }

    /** A headline, what stands under it, and what is read out with it where that stands elsewhere. */
    private fun say(text: String, under: String? = null, spoken: String? = under, bad: Boolean = false) {
        headline.show(true)
        headline.setTextAppearance(if (bad) R.style.Body else R.style.Headline)
        headline.setTextColor(context.getColor(if (bad) R.color.bad else R.color.ink))
        headline.text = text
        val all = if (spoken == null) text else context.getString(R.string.spoken_bar, text, spoken)
        headline.contentDescription = context.getString(R.string.spoken_answer, all)
        if (under != null) score(under)
    }

    private fun score(text: String) {
        score.text = text
        score.show(true)
    }

    private fun facts(reply: Reply, count: String) {
        val took = milliseconds(reply.milliseconds)
        facts.text = context.getString(R.string.facts, took, count)
        facts.contentDescription = context.getString(R.string.facts_spoken, took, count)
        facts.show(true)
    }

    private fun SpannableString.mark(start: Int, end: Int, color: Int) {
        if (end > start) setSpan(BackgroundColorSpan(color), start, end, Spanned.SPAN_EXCLUSIVE_EXCLUSIVE)
    }

    private companion object {
        /** Labels that are shown at most. */
        const val SHOWN = 5

        /** Numbers of a vector that are shown. */
        const val NUMBERS = 8
        const val PLAIN = "none"

        /** What a checkpoint of one label calls it when nobody named it. */
        const val GENERIC_LABEL = "LABEL_0"
        val MARKS = listOf(
            R.color.mark_1, R.color.mark_2, R.color.mark_3, R.color.mark_4, R.color.mark_5, R.color.mark_6,
        )
    }
}
