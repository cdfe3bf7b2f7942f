// The tabs: which view is shown, by mouse, by arrow keys, and by the width of the window.

import { byId } from './dom.js';

const wide = matchMedia('(min-width: 900px)');

export class Views {
  #tabs = [...document.querySelectorAll('[role=tab]')];
  #onShow;

  constructor(onShow) {
    this.#onShow = onShow;
    for (const tab of this.#tabs) {
      tab.addEventListener('click', () => this.show(tab.dataset.view));
      tab.addEventListener('keydown', (event) => this.#key(event));
    }
    wide.addEventListener('change', () => this.show(this.current));
    const kept = sessionStorage.getItem('view');
    this.show(this.#tabs.some((tab) => tab.dataset.view === kept) ? kept : 'chat');
  }

  get current() {
    return document.body.dataset.view;
  }

  /** On a wide window the chat stands beside the others, and the turn takes its place as a view. */
  show(view) {
    const shown = view === 'chat' && wide.matches ? 'turn' : view;
    document.body.dataset.view = shown;
    sessionStorage.setItem('view', view);
    byId('panel-chat').setAttribute('role', wide.matches ? 'region' : 'tabpanel');
    for (const tab of this.#tabs) {
      const isShown = tab.dataset.view === shown;
      tab.setAttribute('aria-selected', String(isShown));
      tab.tabIndex = isShown ? 0 : -1;
    }
    this.#onShow(shown);
  }

  #key(event) {
    const tabs = this.#tabs.filter((tab) => tab.offsetParent !== null);
    const at = tabs.indexOf(event.currentTarget);
    const to = { ArrowRight: (at + 1) % tabs.length, ArrowLeft: (at + tabs.length - 1) % tabs.length, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tabs[to].focus();
    this.show(tabs[to].dataset.view);
  }
}
