package dev.edgebert.app

import android.os.Build
import android.view.View
import android.view.ViewGroup
import android.widget.TextView

/** What the bundle says of itself, whose it is, and which other one may take its place. */
internal class AboutScreen(
    view: View,
    private val session: Session,
    private val phone: Phone,
    private val openZip: () -> Unit,
) {
    private val context = view.context
    private val first: ViewGroup = view.findViewById(R.id.about_first)
    private val second: ViewGroup = view.findViewById(R.id.about_second)
    private var shown: Model? = null

    fun show() {
        if (session.model === shown) return
        shown = session.model
        first.removeAllViews()
        second.removeAllViews()
        session.opened?.let { model(it) }
        bundle()
        session.opened?.let {
            files(it)
            labels(it)
        }
        app()
    }

    private fun model(opened: Opened) {
        val manifest = opened.edgebert.manifest
        val card = card(first, R.string.about_model)
        card.addFact(R.string.about_source, manifest.source)
        card.addFact(R.string.about_family, manifest.family)
        card.addFact(R.string.about_task, manifest.task)
        card.addFact(R.string.about_recipe, manifest.recipe)
        card.addFact(R.string.about_parameters, number(manifest.parameters))
        card.addFact(R.string.about_lengths, manifest.lengths.joinToString())
        card.addFact(R.string.about_vocabulary, number(manifest.vocabSize.toLong()))
        card.addFact(R.string.about_runtime, opened.edgebert.runtime)
        card.addFact(R.string.about_floor, manifest.floor)
        manifest.tolerance?.let {
            val held = context.getString(
                R.string.about_tolerance_value, number(it.minSqnrDb, 1), percent(it.minLabelAgreement),
            )
            card.addFact(R.string.about_tolerance, held)
        }
        val licence = if (manifest.source == DEFAULT) {
            context.getString(R.string.about_default_licence)
        } else {
            context.getString(R.string.about_model_licence, manifest.source)
        }
        card.addFact(R.string.about_licence, licence)
        if (manifest.notes.isNotEmpty()) card.addFact(R.string.about_notes, manifest.notes.joinToString("\n"))
    }

    private fun bundle() {
        val card = card(first, R.string.about_bundle)
        session.opened?.let {
            val from = context.getString(if (it.folder == null) R.string.about_built_in else R.string.about_opened)
            card.addText("${it.name}, $from", R.style.Body)
        }
        card.addText(context.getString(R.string.about_other), R.style.Soft, above = 4)
        val buttons = Flow(context, null)
        card.addView(buttons, wide(card.dp(16)))
        buttons.addButton(R.string.open_zip, R.style.Tonal, 0, openZip)
        if (session.hasBuiltIn && session.opened?.folder != null) {
            buttons.addButton(R.string.use_built_in, R.style.Tonal, 0, session::openBuiltIn)
        }
    }

    private fun files(opened: Opened) {
        val card = card(first, R.string.about_files)
        for ((name, entry) in opened.edgebert.manifest.files) card.addFact(name, context.size(entry.bytes))
    }

    private fun labels(opened: Opened) {
        val labels = opened.edgebert.manifest.labels
        if (labels.isEmpty()) return
        val card = card(second, R.string.about_labels)
        card.addText(labels.joinToString(" · "), R.style.Soft).setTextIsSelectable(true)
    }

    private fun app() {
        val card = card(second, R.string.about_app)
        card.addFact(R.string.about_version, context.version)
        val place = listOfNotNull(phone.name, "Android ${Build.VERSION.RELEASE}", Build.SUPPORTED_ABIS.firstOrNull())
        card.addFact(R.string.about_phone, place.joinToString())
        card.addFact(R.string.about_licence, context.getString(R.string.about_app_licence))
        card.addText(context.getString(R.string.about_privacy), R.style.Soft, above = 12)
    }

    private fun card(into: ViewGroup, title: Int): ViewGroup {
        val card = into.add(R.layout.card) as ViewGroup
        card.findViewById<TextView>(R.id.card_title).setText(title)
        return card
    }

    private companion object {
        const val DEFAULT = "default"
    }
}
