package dev.edgebert.app

import android.annotation.TargetApi
import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.util.TypedValue
import android.view.View
import android.view.WindowInsets
import android.widget.TextView

/** The app's one window: four screens, one of which is shown, and the tabs that choose it. */
public class MainActivity : Activity() {
    private val phone = Phone()
    internal lateinit var session: Session
        private set
    private lateinit var ask: AskScreen
    private lateinit var measure: MeasureScreen
    private lateinit var check: CheckScreen
    private lateinit var about: AboutScreen
    private var tab = R.id.tab_ask

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.main)
        keepClearOfBars(findViewById(R.id.root))
        @Suppress("DEPRECATION") // what stands for it is not of the framework
        session = lastNonConfigurationInstance as Session? ?: Session(applicationContext, phone)
        ask = AskScreen(findViewById(R.id.screen_ask), session)
        measure = MeasureScreen(findViewById(R.id.screen_measure), session, phone, ::share)
        check = CheckScreen(findViewById(R.id.screen_check), session, ::share)
        about = AboutScreen(findViewById(R.id.screen_about), session, phone, ::pickZip)
        findViewById<TextView>(R.id.title).text = applicationInfo.loadLabel(packageManager)
        findViewById<View>(R.id.none_open).setOnClickListener { pickZip() }
        findViewById<View>(R.id.none_built_in).setOnClickListener { session.openBuiltIn() }
        findViewById<View>(R.id.notice_close).setOnClickListener {
            session.notice = null
            show()
        }
        for (id in TABS.keys) tab(findViewById(id)).setOnClickListener { choose(id) }
        tab = TABS.keys.elementAtOrNull(saved?.getInt(TAB) ?: 0) ?: R.id.tab_ask
        ask.secondShown = saved?.getBoolean(SECOND) ?: false
    }

    // Fields have their texts again only after onRestoreInstanceState.
    override fun onPostCreate(saved: Bundle?) {
        super.onPostCreate(saved)
        session.changed = ::show
        show()
    }

    override fun onSaveInstanceState(out: Bundle) {
        super.onSaveInstanceState(out)
        out.putInt(TAB, TABS.keys.indexOf(tab))
        out.putBoolean(SECOND, ask.secondShown)
    }

    @Deprecated("What stands for it is not of the framework.")
    override fun onRetainNonConfigurationInstance(): Any = session

    override fun onDestroy() {
        session.changed = {}
        if (!isChangingConfigurations) session.close()
        super.onDestroy()
    }

    @Deprecated("What stands for it is not of the framework.")
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val zip = data?.data
        if (request == PICK && result == RESULT_OK && zip != null) session.open(zip)
    }

    /** Four names stand beside each other, so that letters grow by a third and no further. */
    private fun tab(view: TextView): TextView {
        val most = view.textSize.coerceAtMost(16 * resources.displayMetrics.density)
        view.setTextSize(TypedValue.COMPLEX_UNIT_PX, most)
        return view
    }

    private fun choose(id: Int) {
        tab = id
        show()
    }

    private fun show() {
        val model = session.model
        val fits = model is Model.Open || tab == R.id.tab_about
        for ((id, screen) in TABS) {
            findViewById<View>(id).isSelected = id == tab
            findViewById<View>(screen).show(id == tab && fits)
        }
        findViewById<View>(R.id.screen_none).show(!fits && model !is Model.Opening)
        header(model)
        when (model) {
            is Model.Open -> {
                ask.show()
                measure.show()
                check.show()
            }
            is Model.Refused -> none(R.string.failed_title, model.why)
            is Model.None -> none(R.string.none_title, getString(R.string.none_text))
            is Model.Opening -> Unit
        }
        about.show()
    }

    private fun header(model: Model) {
        findViewById<TextView>(R.id.model).text = when (model) {
            is Model.Opening -> getString(if (model.unpacking) R.string.unpacking else R.string.opening)
            is Model.Open -> model.opened.edgebert.manifest.let { getString(R.string.model_line, it.family, it.recipe) }
            is Model.None, is Model.Refused -> ""
        }
        findViewById<View>(R.id.model).show(model is Model.Open || model is Model.Opening)
        findViewById<View>(R.id.notice).show(session.notice != null)
        findViewById<TextView>(R.id.notice_text).text = session.notice.orEmpty()
    }

    private fun none(title: Int, text: String) {
        val empty = session.model is Model.None
        findViewById<TextView>(R.id.none_title).setText(title)
        findViewById<TextView>(R.id.none_text).text = text
        findViewById<View>(R.id.none_command).show(empty)
        findViewById<View>(R.id.none_or).show(empty)
        findViewById<View>(R.id.none_built_in).show(!empty && session.hasBuiltIn)
    }

    private fun pickZip() {
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("*/*")
            .putExtra(Intent.EXTRA_MIME_TYPES, ZIPS)
        start(R.string.no_picker) {
            @Suppress("DEPRECATION")
            startActivityForResult(intent, PICK)
        }
    }

    private fun share(text: String) {
        val intent = Intent(Intent.ACTION_SEND).setType("text/plain").putExtra(Intent.EXTRA_TEXT, text)
        start(R.string.nothing_to_share_with) { startActivity(Intent.createChooser(intent, getString(R.string.share))) }
    }

    private fun start(otherwise: Int, activity: () -> Unit) {
        try {
            activity()
        } catch (_: ActivityNotFoundException) {
            session.notice = getString(otherwise)
            show()
        }
    }

    /**
     * From Android 15 on the window reaches below the bars, the camera and the keyboard: what is in it keeps clear of
     * them, and its grounds go on below.
     */
    private fun keepClearOfBars(root: View) = root.setOnApplyWindowInsetsListener { _, insets ->
        if (Build.VERSION.SDK_INT >= 30) keepClear(insets) else keepClearBefore30(insets)
        insets
    }

    @TargetApi(30)
    private fun keepClear(insets: WindowInsets) {
        val taken = WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout() or WindowInsets.Type.ime()
        val clear = insets.getInsets(taken)
        keepClear(clear.left, clear.top, clear.right, clear.bottom)
    }

    @Suppress("DEPRECATION")
    private fun keepClearBefore30(insets: WindowInsets) = keepClear(
        insets.systemWindowInsetLeft,
        insets.systemWindowInsetTop,
        insets.systemWindowInsetRight,
        insets.systemWindowInsetBottom,
    )

    private fun keepClear(left: Int, top: Int, right: Int, bottom: Int) {
        findViewById<View>(R.id.root).setPadding(left, 0, right, bottom)
        findViewById<View>(R.id.body).setPadding(0, top, 0, 0)
        findViewById<View>(R.id.rail)?.setPadding(0, top, 0, 0)
    }

    private companion object {
        const val PICK = 1

        /** What providers of files call a zip. */
        val ZIPS = arrayOf("application/zip", "application/x-zip-compressed", "application/octet-stream")
        const val TAB = "tab"
        const val SECOND = "second"
        val TABS = linkedMapOf(
            R.id.tab_ask to R.id.screen_ask,
            R.id.tab_measure to R.id.screen_measure,
            R.id.tab_check to R.id.screen_check,
            R.id.tab_about to R.id.screen_about,
        )
    }
}
