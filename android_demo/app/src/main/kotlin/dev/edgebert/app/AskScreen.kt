package dev.edgebert.app

import android.text.Editable
import android.text.TextWatcher
import android.view.View
import android.widget.Button
import android.widget.CheckBox
import android.widget.EditText
import android.widget.TextView
import dev.edgebert.Edgebert

/** A question to the model, as its task wants it, and the answer while one types. */
internal class AskScreen(private val view: View, private val session: Session) {
    private val text: EditText = view.findViewById(R.id.text)
    private val second: EditText = view.findViewById(R.id.second)
    private val textLabel: TextView = view.findViewById(R.id.text_label)
    private val secondLabel: TextView = view.findViewById(R.id.second_label)
    private val mayBeNone: CheckBox = view.findViewById(R.id.may_be_none)
    private val writeOn: Button = view.findViewById(R.id.write_on)
    private val insertMask: Button = view.findViewById(R.id.insert_mask)
    private val addSecond: Button = view.findViewById(R.id.add_second)
    private val clear: Button = view.findViewById(R.id.clear)
    private val answer = AnswerView(view.findViewById(R.id.answer))

    /** Whether an optional second text is asked for. */
    var secondShown = false

    init {
        val typed = object : TextWatcher {
            override fun beforeTextChanged(s: CharSequence, start: Int, count: Int, after: Int) = Unit
            override fun onTextChanged(s: CharSequence, start: Int, before: Int, count: Int) = Unit
            override fun afterTextChanged(s: Editable) = show()
        }
        text.addTextChangedListener(typed)
        second.addTextChangedListener(typed)
        mayBeNone.setOnCheckedChangeListener { _, _ -> show() }
        writeOn.setOnClickListener {
            session.ask(question().copy(writeOn = true))
            show()
        }
        insertMask.setOnClickListener { insert(insertMask.tag as String) }
        addSecond.setOnClickListener {
            secondShown = !secondShown
            show()
            (if (secondShown) second else text).requestFocus()
        }
        clear.setOnClickListener {
            text.setText("")
            second.setText("")
            text.requestFocus()
        }
    }

    /** Shows what the session knows; asks it what stands in the fields, which it may have answered already. */
    fun show() {
        val opened = session.opened ?: return
        fields(opened)
        session.ask(question())
        answer.show(session)
    }

    private fun fields(opened: Opened) {
        val task = opened.task
        val mask = if (task == Task.FILL) mask(opened.edgebert) else null
        textLabel.setText(task.label)
        text.hint = view.context.getString(task.hint, mask.orEmpty())
        secondLabel.setText(task.secondLabel)
        second.setHint(task.secondHint)
        second.show(asksSecond(task))
        secondLabel.show(asksSecond(task))
        addSecond.show(task.second == Second.OPTIONAL)
        addSecond.setText(if (secondShown) R.string.remove_second else R.string.add_second)
        mayBeNone.show(task == Task.ANSWER)
        writeOn.show(task == Task.WRITE)
        writeOn.isEnabled = text.text.isNotBlank()
        insertMask.show(mask != null)
        insertMask.tag = mask
        insertMask.text = view.context.getString(R.string.insert_mask, mask.orEmpty())
        clear.show(text.text.isNotEmpty() || second.text.isNotEmpty())
    }

    private fun asksSecond(task: Task): Boolean = when (task.second) {
        Second.NONE -> false
        Second.OPTIONAL -> secondShown
        Second.BESIDE, Second.NEEDED -> true
    }

    private fun question(): Question {
        val task = session.opened?.task ?: return Question()
        return Question(
            text.text.toString(),
            if (asksSecond(task)) second.text.toString() else "",
            mayBeNone.isChecked && task == Task.ANSWER,
        )
    }

    /** The gap's token, as this tokenizer spells it. */
    private fun mask(model: Edgebert): String? = model.tokenizer?.let { it.decode(intArrayOf(it.maskId), false) }

    private fun insert(token: String) {
        val start = minOf(text.selectionStart, text.selectionEnd).coerceAtLeast(0)
        val end = maxOf(text.selectionStart, text.selectionEnd).coerceAtLeast(0)
        text.text.replace(start, end, token)
        text.requestFocus()
    }
}
