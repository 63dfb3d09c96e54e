package dev.edgebert.app

import android.content.res.ColorStateList
import android.view.View
import android.view.ViewGroup
import android.widget.ImageView
import android.widget.TextView
import dev.edgebert.Check
import dev.edgebert.CheckReport

/** Whether this phone's kernels answer as torch does: each check with its decibels, and one verdict. */
internal class CheckScreen(view: View, private val session: Session, private val share: (String) -> Unit) {
    private val context = view.context
    private val result: ViewGroup = view.findViewById(R.id.check_result)
    private val working = WorkingView<CheckReport>(view, result)

    init {
        view.findViewById<TextView>(R.id.check_text).setText(R.string.check_text)
    }

    fun show() = working.show(
        session, session.checking, R.string.check_start, R.string.check_again, session::check, ::table,
    )

    private fun table(report: CheckReport) {
        verdict(report)
        for (check in report.checks) row(check)
        result.addText(report.runtime, R.style.Soft, above = 12)
        result.addButton(R.string.check_share, R.style.Tonal, above = 16) { share(words(report)) }
    }

    private fun verdict(report: CheckReport) = result.add(R.layout.verdict).apply {
        val failed = report.checks.count { !it.passed }
        sign(findViewById(R.id.sign), report.passed)
        findViewById<View>(R.id.sign).isActivated = report.passed
        findViewById<TextView>(R.id.verdict).setText(if (failed == 0) R.string.check_passed else R.string.check_failed)
        findViewById<TextView>(R.id.verdict_text).text = if (failed == 0) {
            context.plural(R.plurals.check_passed_text, report.checks.size)
        } else {
            context.getString(R.string.check_failed_text, failed, report.checks.size)
        }
    }

    private fun row(check: Check) = result.add(R.layout.check_row).apply {
        sign(findViewById(R.id.sign), check.passed)
        findViewById<TextView>(R.id.name).text = check.name
        findViewById<TextView>(R.id.detail).text = check.detail
        val decibels = check.decibels
        findViewById<View>(R.id.numbers).show(decibels != null)
        if (decibels != null) findViewById<TextView>(R.id.decibels).text = decibels(decibels)
        val least = check.least
        findViewById<TextView>(R.id.least).text =
            if (least == null) "" else context.getString(R.string.least, decibels(least))
        val verdict = context.getString(if (check.passed) R.string.passed else R.string.failed)
        contentDescription = "$verdict: ${check.name}. ${check.detail}"
    }

    private fun sign(view: ImageView, passed: Boolean) {
        view.setImageResource(if (passed) R.drawable.passed else R.drawable.failed)
        view.imageTintList = ColorStateList.valueOf(context.getColor(if (passed) R.color.good else R.color.bad))
    }

    private fun decibels(value: Double): String = context.run {
        if (value.isInfinite()) getString(R.string.equal) else getString(R.string.decibels, number(value, 1))
    }

    /** The report as lines of text. */
    private fun words(report: CheckReport): String {
        val head = context.getString(if (report.passed) R.string.check_passed else R.string.check_failed)
        val lines = report.checks.map { check ->
            val verdict = context.getString(if (check.passed) R.string.passed else R.string.failed)
            "$verdict: ${check.name}: ${check.detail}"
        }
        val phone = Phone()
        val where = listOfNotNull(
            session.opened?.name, report.runtime, phone.name, "Android ${android.os.Build.VERSION.RELEASE}",
            android.os.Build.FINGERPRINT, phone.features,
        )
        return (listOf(head) + lines + where).joinToString("\n")
    }
}
